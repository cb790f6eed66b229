package node

import (
	"errors"
	"time"

	"quorate/node/raft"
	"quorate/transport"
)

// forwardTimeout is how long the leader may take for what another node handed on to it. Whoever waits has a context of its own.
const forwardTimeout = 30 * time.Second

// forward handles the requests of users while this node does not lead: they are handed on to the leader, reads as one, or answered that
// this node is not it. They wait a little for the one to be known that it has handed leadership over to.
func (c *raftCore) forward(now time.Time, requests []request) {
	leader := c.engine.Leader()
	notLeader := &NotLeaderError{Leader: leader.ID}
	awaiting := c.awaitingSuccessor(now)
	var reads []request
	for _, r := range requests {
		switch {
		case awaiting && !r.local && !c.cfg.NoForwarding && len(c.taken.parked) < maxDrainAPI:
			c.taken.parked = append(c.taken.parked, r)
		case r.local || c.cfg.NoForwarding || leader == (raft.Peer{}) || leader == c.self:
			r.pending.resolve(Result{}, notLeader)
		case r.read:
			reads = append(reads, r)
		default:
			c.handOn(leader, r.pending)
		}
	}
	if len(reads) > 0 {
		c.askReadIndex(leader, reads, notLeader)
	}
}

// handOn gives one proposal to the leader.
func (c *raftCore) handOn(leader raft.Peer, p *Pending) {
	e := &p.entry
	req := &transport.ProposeRequest{Kind: e.Kind, Data: e.Data, Session: e.Session, Sequence: e.Sequence, LowWater: e.LowWater}
	callTraced(c.transport, leader, req, p.trace.handingOn(leader.ID), forwardTimeout, func(a transport.Answer) {
		p.resolve(forwarded(a, len(e.Data)))
	})
}

// forwarded is the outcome of a proposal of that size that was handed on.
func forwarded(a transport.Answer, size int) (Result, error) {
	resp, ok := a.Response.(*transport.ProposeResponse)
	var refused *transport.RefusedError
	var tooLarge *transport.TooLargeError
	switch {
	case errors.As(a.Err, &tooLarge):
		return Result{}, &TooLargeError{Size: size, Limit: max(0, tooLarge.Limit-EntryEnvelope)}
	case errors.Is(a.Err, transport.ErrNoResponders), errors.Is(a.Err, transport.ErrDisconnected):
		return Result{}, &NotLeaderError{} // it was not sent, or nobody got it
	case errors.As(a.Err, &refused):
		return Result{}, ErrBusy
	case a.Err != nil || !ok:
		return Result{}, ErrUnknownOutcome
	}
	switch resp.Failure {
	case transport.FailureNone:
		return Result{ID: resp.ID, Value: resp.Value}, nil
	case transport.FailureNotLeader:
		return Result{}, &NotLeaderError{Leader: resp.Leader}
	case transport.FailureBusy:
		return Result{}, ErrBusy
	case transport.FailureTooLarge:
		return Result{}, &TooLargeError{Size: size}
	case transport.FailureLost:
		return Result{}, ErrLost
	case transport.FailureSession:
		return Result{}, ErrSessionExpired
	case transport.FailureStopped:
		return Result{}, &NotLeaderError{}
	default:
		return Result{}, ErrUnknownOutcome
	}
}

// askReadIndex asks the leader for one read index for all reads of a pass. A leader that does not answer for as long as it can lead without a
// quorum leads no more.
func (c *raftCore) askReadIndex(leader raft.Peer, reads []request, notLeader error) {
	callTraced(c.transport, leader, &transport.ReadIndexRequest{}, c.tracing.readIndex(leader.ID, reads), 2*c.cfg.ElectionTimeout, func(a transport.Answer) {
		resp, ok := a.Response.(*transport.ReadIndexResponse)
		if a.Err != nil || !ok {
			resolveReads(reads, Result{}, notLeader)
			return
		}
		confirm := controlCall{
			run:  func(c *raftCore) { c.reads.confirm(resp.Index, reads, c.applied.Index) },
			drop: func() { resolveReads(reads, Result{}, ErrStopped) },
		}
		select {
		case c.in.control <- timed[controlCall]{confirm, c.metrics.now()}:
		default:
			resolveReads(reads, Result{}, ErrBusy)
		}
	})
}

// takeForwarded hands what another node handed on to RaftCore, like a request of this node's own users. It is called by goroutines of the
// transport and does not block.
func (n *Node) takeForwarded(in transport.Incoming) {
	r := request{local: true}
	switch req := in.Request.(type) {
	case *transport.ReadIndexRequest:
		r.read, r.confirm = true, true
		r.pending = &Pending{then: func(o outcome) {
			if o.err != nil {
				in.Refuse(o.err.Error())
				return
			}
			in.Reply(&transport.ReadIndexResponse{From: n.self, Index: o.result.ID.Index})
		}}
	case *transport.ProposeRequest:
		if err := n.admit(req.Data); err != nil {
			in.Reply(n.proposeResponse(outcome{err: err}))
			return
		}
		r.pending = &Pending{
			entry: raft.Entry{Kind: req.Kind, Data: req.Data, Session: req.Session, Sequence: req.Sequence, LowWater: req.LowWater},
			then:  func(o outcome) { in.Reply(n.proposeResponse(o)) },
		}
	}
	r.pending.sent = n.metrics.now() // its outcome is measured where it came from
	if in.Trace.IsSampled() {
		r.trace(n, in.Trace)
	}
	select {
	case n.in.api <- r:
	default:
		r.pending.refuse(ErrBusy)
		in.Refuse(ErrBusy.Error())
	}
}

func (n *Node) proposeResponse(o outcome) *transport.ProposeResponse {
	resp := &transport.ProposeResponse{From: n.self, ID: o.result.ID, Value: o.result.Value}
	var notLeader *NotLeaderError
	var tooLarge *TooLargeError
	switch {
	case o.err == nil:
	case errors.As(o.err, &notLeader):
		resp.Failure, resp.Leader = transport.FailureNotLeader, notLeader.Leader
	case errors.As(o.err, &tooLarge):
		resp.Failure = transport.FailureTooLarge
	case errors.Is(o.err, ErrUnknownOutcome):
		resp.Failure = transport.FailureUnknown
	case errors.Is(o.err, ErrBusy):
		resp.Failure = transport.FailureBusy
	case errors.Is(o.err, ErrLost):
		resp.Failure = transport.FailureLost
	case errors.Is(o.err, ErrSessionExpired):
		resp.Failure = transport.FailureSession
	case errors.Is(o.err, ErrStopped), errors.Is(o.err, ErrNotInitialized):
		resp.Failure = transport.FailureStopped
	default:
		resp.Failure = transport.FailureUnknown
	}
	return resp
}
