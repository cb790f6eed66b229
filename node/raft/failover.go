package raft

import "time"

// Instant failover: NATS tells within milliseconds that nobody is subscribed to a subject. A follower that has missed
// one heartbeat therefore asks NATS for its leader, and stands at once when nobody is there. This changes when an
// election starts, never who may win it; and a voter believes only its own probe.

// missedHeartbeat is the silence after which one heartbeat is missed: one interval, and half of one for delays.
func (e *Engine) missedHeartbeat() time.Duration { return e.cfg.HeartbeatInterval * 3 / 2 }

// electionScale is the time that an election without timeouts takes: a pre-vote, the voters' own probes, a vote, and two
// writes to disk, generously.
func (e *Engine) electionScale() time.Duration {
	const disk = 10 * time.Millisecond
	return min(8*e.following.roundTrip+disk, e.cfg.ElectionTimeout/2)
}

// mayProbe reports whether the node wants to know if its leader is there: it has one, and could stand in its place.
func (e *Engine) mayProbe() bool {
	f := &e.following
	return e.leading == nil && f.leader != (Peer{}) && !f.gone && !f.probing && e.promiseTime() == 0 && e.mayStand()
}

func (e *Engine) tickProbe() {
	if e.mayProbe() && !e.now.Before(e.following.probeAt) {
		e.probe()
	}
}

func (e *Engine) probe() {
	e.following.probing, e.following.probedAt = true, e.now
	leader := e.following.leader
	e.out.Probe = &leader
}

// ProbeAnswer tells the outcome of Output.Probe: gone if NATS said that the peer has no responders, which is the one proof.
// roundTrip is how long it took.
func (e *Engine) ProbeAnswer(now time.Time, peer Peer, gone bool, roundTrip time.Duration) {
	e.step(now)
	f := &e.following
	f.probing = false
	if e.leading != nil || f.leader != peer {
		e.refuseHeld() // asked about an earlier leader: who still wants a vote asks again
		return
	}
	f.probeAt = now.Add(e.cfg.HeartbeatInterval)
	if !gone || f.heard.After(f.probedAt) || e.promiseTime() > 0 { // leases: nobody's absence ends a promise
		e.refuseHeld()
		return
	}
	f.roundTrip = roundTrip
	f.gone = true
	// The preferred successor stands at once, the others leave it time to win.
	if turn := now.Add(time.Duration(e.rank()) * e.electionScale()); turn.Before(f.deadline) {
		f.deadline = turn
	}
	held := f.held
	f.held = nil
	for _, h := range held {
		e.decideVote(&h.req, h.to)
	}
	e.out.Changed = true
}

// holdVote keeps the request of a candidate while the node is in touch with a leader: a follower asks NATS whether the
// leader is gone, and refuses if it is not.
func (e *Engine) holdVote(req *VoteRequest, to ReplyTo) {
	f := &e.following
	if e.leading != nil {
		e.refuseVote(req, to)
		return
	}
	for i, h := range f.held {
		if h.req.Candidate == req.Candidate { // it asks again: the newer request is the one that counts
			e.refuseVote(&h.req, h.to)
			f.held[i] = heldVote{to: to, req: *req}
			return
		}
	}
	const most = 16 // more candidates than that at a time are not a cluster
	if len(f.held) >= most {
		e.refuseVote(req, to)
		return
	}
	f.held = append(f.held, heldVote{to: to, req: *req})
	if !f.probing {
		e.probe()
	}
}

func (e *Engine) refuseVote(req *VoteRequest, to ReplyTo) {
	e.replyVote(to, VoteResponse{
		From: e.cfg.Self, Term: e.vote.Term, Pre: req.Pre, Removed: e.removedSince(req),
	})
}

func (e *Engine) refuseHeld() {
	held := e.following.held
	e.following.held = nil
	for _, h := range held {
		e.refuseVote(&h.req, h.to)
	}
}
