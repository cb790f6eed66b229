package raft

import (
	"fmt"
	"slices"
	"time"
)

// letter is something under way from one node to another.
type letter struct {
	from, to NodeID
	text     string
	// arrive hands it over. lost tells the sender that nobody was there; nil for answers.
	arrive func()
	lost   func()
}

// send posts the engine's messages.
func (n *clusterNode) send(out Output) {
	c := n.c
	for _, v := range out.Votes {
		req := v.Request
		kind := "vote"
		if req.Pre {
			kind = "pre-vote"
		}
		c.request(n, v.To, fmt.Sprintf("%s? term %d, last %v", kind, req.Term, req.Last), &req, func(a any) {
			if resp, ok := a.(*VoteResponse); ok {
				n.engine.VoteAnswer(c.now, resp)
			}
		})
	}
	for _, v := range out.TimeoutNow {
		req := v.Request
		c.request(n, v.To, fmt.Sprintf("stand now! term %d", req.Term), &req, func(any) {})
	}
	for i := range out.TimeoutNowReplies {
		n.reply(out.TimeoutNowReplies[i].To, &out.TimeoutNowReplies[i].Response)
	}
	for i := range out.VoteReplies {
		n.reply(out.VoteReplies[i].To, &out.VoteReplies[i].Response)
	}
	for i := range out.AppendReplies {
		n.reply(out.AppendReplies[i].To, &out.AppendReplies[i].Response)
	}
	if out.Probe != nil {
		leader, sent := *out.Probe, c.now
		c.request(n, leader, "are you there?", nil, func(a any) {
			n.engine.ProbeAnswer(c.now, leader, a == nil, max(time.Millisecond, c.now.Sub(sent)))
		})
	}
}

func (n *clusterNode) reply(to ReplyTo, response any) {
	reply := n.replies[to]
	if reply == nil {
		n.c.Fatalf("%s answers request %d twice", n.self.ID, to)
	}
	delete(n.replies, to)
	reply(response)
}

// request posts a request; done gets the answer, or nil if nobody was there.
func (c *cluster) request(from *clusterNode, to Peer, text string, request any, done func(any)) {
	boot := from.boot
	under := &call{at: c.now}
	c.calls = append(c.calls, under)
	finish := func(a any) {
		if under.ended {
			return
		}
		under.ended = true
		if from.up && from.boot == boot {
			done(a)
			from.flush()
		}
	}
	under.end = func() { finish(nil) }
	c.post(&letter{from: from.self.ID, to: to.ID, text: text, lost: func() { finish(nil) }, arrive: func() {
		target := c.node(to.ID)
		answer := func(response any) {
			c.post(&letter{from: to.ID, to: from.self.ID, text: describeAnswer(response), arrive: func() { finish(response) }})
		}
		target.to++
		switch req := request.(type) {
		case *AppendRequest:
			target.replies[target.to] = answer
			target.engine.Append(c.now, req, target.to)
		case *VoteRequest:
			target.replies[target.to] = answer
			target.engine.VoteRequested(c.now, req, target.to)
		case *InstallRequest:
			target.replies[target.to] = answer
			target.engine.Install(c.now, req, target.to)
		case *TimeoutNowRequest:
			target.replies[target.to] = answer
			target.engine.TimeoutNow(c.now, req, target.to)
		default:
			answer("yes")
		}
		target.flush()
	}})
}

// call is a request that is not answered yet.
type call struct {
	at    time.Time
	ended bool
	end   func()
}

// expire ends the calls that nobody answered for two election timeouts.
func (c *cluster) expire() {
	calls := c.calls
	c.calls = nil
	for _, under := range calls {
		switch {
		case under.ended:
		case c.now.Sub(under.at) < 2*timeout:
			c.calls = append(c.calls, under)
		default:
			under.end()
		}
	}
}

func describeAnswer(response any) string {
	switch r := response.(type) {
	case *VoteResponse:
		switch {
		case r.Granted && r.Pre:
			return fmt.Sprintf("would vote in term %d", r.Term)
		case r.Granted:
			return fmt.Sprintf("votes in term %d", r.Term)
		}
		if r.Removed > 0 {
			return fmt.Sprintf("no vote, term %d, removed by %d", r.Term, r.Removed)
		}
		return fmt.Sprintf("no vote, term %d", r.Term)
	case *TimeoutNowResponse:
		if r.Standing {
			return "stands"
		}
		return "does not stand"
	case *AppendResponse:
		switch r.Status {
		case AppendMatched:
			return fmt.Sprintf("matched %v", r.Matched)
		case AppendConflict:
			return fmt.Sprintf("conflict, try after %v", r.Hint)
		case AppendInstalling:
			return "does not have the snapshot yet"
		case AppendDamaged:
			return "the snapshot is damaged"
		}
		return fmt.Sprintf("refused, term %d", r.Term)
	}
	return fmt.Sprint(response)
}

func (c *cluster) post(l *letter) {
	if !c.isolated[l.from] && !c.isolated[l.to] {
		c.mail = append(c.mail, l)
	}
}

// deliver hands over the letters that match, and those that follow from them, until there are none, or most are delivered.
// It returns how many there were.
func (c *cluster) deliver(match func(*letter) bool, most int) int {
	for n := 0; n < most; n++ {
		i := slices.IndexFunc(c.mail, match)
		if i < 0 {
			return n
		}
		l := c.mail[i]
		c.mail = slices.Delete(c.mail, i, i+1)
		c.hand(l)
	}
	return most
}

func (c *cluster) hand(l *letter) {
	switch {
	case c.node(l.to).up && (l.lost == nil || !c.hidden[[2]NodeID{l.from, l.to}]):
		c.say("%s>%s %s", l.from, l.to, l.text)
		l.arrive()
	case l.lost != nil:
		c.say("%s>%s %s (no responders)", l.from, l.to, l.text)
		l.lost()
	}
}
