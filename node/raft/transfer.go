package raft

import (
	"fmt"
	"time"
)

// transfer is a leader's attempt to hand over (dissertation section 3.10): it takes nothing new, brings the target up to date,
// tells it to stand at once, and goes on leading if that does not come to anything within an election timeout.
type transfer struct {
	to       Peer
	deadline time.Time
	told     bool
}

// TimeoutNowRequest tells a voter to stand for election at once.
type TimeoutNowRequest struct {
	Term   uint64
	Leader Peer
}

// TimeoutNowResponse says whether it will.
type TimeoutNowResponse struct {
	From     Peer
	Term     uint64
	Standing bool
}

// TransferError says why leadership cannot be handed to a node.
type TransferError struct {
	To     NodeID
	Reason string
	// Nobody: no other voter answers, so there is nobody else to try.
	Nobody bool `json:",omitempty"`
}

func (e *TransferError) Error() string {
	if e.To == "" {
		return "cannot transfer leadership: " + e.Reason
	}
	return fmt.Sprintf("cannot transfer leadership to %s: %s", e.To, e.Reason)
}

// Transfer begins to hand leadership to a voter, or to the most caught up one if to is empty. While it is under way the leader
// takes no proposals (Transferring tells); it ends with another leader, or after an election timeout.
func (e *Engine) Transfer(now time.Time, to NodeID) error {
	e.step(now)
	if e.leading == nil {
		return ErrNotLeading
	}
	if to == e.cfg.Self.ID {
		return nil
	}
	if e.leading.transfer != nil {
		return ErrTransferring
	}
	e.rankSuccessors()
	if to == "" {
		for _, id := range e.leading.successors {
			if e.unable(id) == "" {
				to = id
				break
			}
		}
		if to == "" {
			return &TransferError{Reason: "no other voter answers", Nobody: true}
		}
	}
	if why := e.unable(to); why != "" {
		return &TransferError{To: to, Reason: why}
	}
	e.leading.transfer = &transfer{to: e.leading.targets[to].peer, deadline: e.now.Add(e.cfg.ElectionTimeout)}
	e.out.Changed = true
	e.advanceTransfer()
	return nil
}

// unable says why a node cannot take over now, or "".
func (e *Engine) unable(id NodeID) string {
	member, ok := e.Membership().Find(id)
	t := e.leading.targets[id]
	switch {
	case !ok:
		return "it is not a member"
	case !member.Voter:
		return "it does not vote"
	case t == nil || t.peer != member.Peer || !e.answers(t):
		return "it does not answer"
	}
	return ""
}

// Transferring reports whether the leader is handing over: it takes no proposals until that is decided.
func (e *Engine) Transferring() bool { return e.leading != nil && e.leading.transfer != nil }

// advanceTransfer tells the target to stand, once it has the whole log. It gives up when the target is gone: to wait for a process that
// NATS does not know of any more helps nobody.
func (e *Engine) advanceTransfer() {
	if e.leading == nil || e.leading.transfer == nil {
		return
	}
	x := e.leading.transfer
	t := e.leading.targets[x.to.ID]
	if t == nil || t.peer != x.to || !e.answers(t) {
		e.leading.transfer = nil
		e.out.Changed = true
		return
	}
	if x.told || t.matched != e.log.last {
		return
	}
	x.told = true
	e.timeoutNow(x.to)
}

func (e *Engine) timeoutNow(to Peer) {
	e.leading.released = true
	e.out.TimeoutNow = append(e.out.TimeoutNow, SendTimeoutNow{To: to, Request: TimeoutNowRequest{Term: e.vote.Term, Leader: e.cfg.Self}})
}

// TimeoutNow handles the leader's wish that this node stands at once. It stands without a pre-vote, and says to the voters that
// the leader wants it, so that being in touch with that leader does not make them refuse. A leader of another term has no say.
func (e *Engine) TimeoutNow(now time.Time, req *TimeoutNowRequest, to ReplyTo) {
	e.step(now)
	resp := TimeoutNowResponse{From: e.cfg.Self, Term: e.vote.Term}
	if req.Term == e.vote.Term && req.Term > 0 && e.leading == nil && e.following.leader == req.Leader &&
		req.Leader.ID != "" && e.Membership().IsVoter(e.cfg.Self) && !e.diskStalled() && !e.following.quiet && !e.bound(true) {
		resp.Standing = true
		e.following.removed = false // who leads counts it among the voters
		e.startVote()
		e.campaign.transfer = true
	}
	e.out.TimeoutNowReplies = append(e.out.TimeoutNowReplies, TimeoutNowReply{To: to, Response: resp})
}
