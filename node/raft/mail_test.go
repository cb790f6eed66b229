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
	finish := func(a any) {
		if from.up && from.boot == boot {
			done(a)
			from.flush()
		}
	}
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
		default:
			answer("yes")
		}
		target.flush()
	}})
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
		return fmt.Sprintf("no vote, term %d", r.Term)
	case *AppendResponse:
		switch r.Status {
		case AppendMatched:
			return fmt.Sprintf("matched %v", r.Matched)
		case AppendConflict:
			return fmt.Sprintf("conflict, try after %v", r.Hint)
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
