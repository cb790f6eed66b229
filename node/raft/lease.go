package raft

import "time"

// Leases (dissertation section 6.4.1, rule 5 of the design): a leader that a quorum answered lately reads without asking again, since
// each of those voters has promised to help nobody else for a time. Instant failover breaks that promise, so a cluster has one or the other.
//
// The promise does not depend on the term, nor on who leads: it begins when a leader's message arrives, which is after it was sent, and the
// leader counts from the sending. So the leader's lease is over first, as long as their clocks run at nearly one pace.

// defaultClockDrift is the part of a lease, in percent, that clocks may differ by.
const defaultClockDrift = 10

// promiseTime is for how long this node's promises last: by the newest committed setting or by a later one in its log, whichever is longer. It
// is zero in a cluster with instant failover.
func (e *Engine) promiseTime() time.Duration {
	var longest time.Duration
	for _, at := range e.settings {
		longest = max(longest, at.Setting.Lease)
	}
	return longest
}

// promised returns until when this node has promised to help nobody to lead, its own candidacy included; the leader itself may
// release it from what it promised to it, by a transfer. What it promised before it was started it does not know: so it takes it that
// it did so just then, and nobody releases it from that.
func (e *Engine) promised(transfer bool) time.Time {
	d := e.promiseTime()
	if d == 0 {
		return time.Time{}
	}
	until := e.started.Add(d)
	if heard := e.following.heard; !transfer && !heard.IsZero() && heard.Add(d).After(until) {
		until = heard.Add(d)
	}
	return until
}

// bound reports whether a promise keeps this node from voting now.
func (e *Engine) bound(transfer bool) bool { return e.now.Before(e.promised(transfer)) }

// Lease returns until when this node is sure to be the only leader, and false if it has no lease: it does not lead, knows not yet all that is
// committed, leases are not what the cluster has agreed on, or it has begun to hand over. A read that finds the time not come yet, by a clock that
// was read after it was asked for, sees everything when the state machine has applied Commit.
func (e *Engine) Lease() (until time.Time, ok bool) {
	l := e.leading
	at := e.SettingAt()
	if l == nil || !e.Serving() || l.transfer != nil || l.released || at.Setting.Lease == 0 || at.ID.Index > e.commit {
		return time.Time{}, false
	}
	reached := e.Membership().QuorumValue(func(m Member) uint64 {
		if m.Peer == e.cfg.Self {
			return uint64(e.now.Sub(l.since)) + 1
		}
		t := l.targets[m.ID]
		if t == nil || t.peer != m.Peer || t.suspect || !t.answered || t.matched.Index < at.ID.Index || t.acked.Before(l.since) || t.acked.Before(l.awake) {
			return 0 // it has promised nothing
		}
		return uint64(t.acked.Sub(l.since)) + 1
	})
	if reached == 0 {
		return time.Time{}, false
	}
	drift := e.cfg.ClockDrift
	if drift <= 0 {
		drift = defaultClockDrift
	}
	sent := l.since.Add(time.Duration(reached - 1))
	until = sent.Add(at.Setting.Lease / 100 * time.Duration(100-min(drift, 100)))
	return until, e.now.Before(until)
}

// Slept tells that this node's clock may have stood still until now, as it does while a whole machine sleeps: what was acknowledged to a
// message sent before gives no lease any more.
func (e *Engine) Slept(now time.Time) {
	e.step(now)
	if e.leading != nil {
		e.leading.awake = now
		e.out.Changed = true
	}
}

// Leased is the lease of a leader as it gives it to those who read beside its engine, without asking.
type Leased struct {
	// Until is when the lease ends, if it is not renewed.
	Until time.Time
	// Index is the commit index: of what anybody was told so far, all was committed up to there.
	Index uint64
}

// Leased returns the lease, or nil if there is none. Who gives it to others replaces it before anything else of an Output is done: then nobody
// can have heard of a later commit, or was released from a promise, while it still stands.
func (e *Engine) Leased() *Leased {
	until, ok := e.Lease()
	if !ok {
		return nil
	}
	return &Leased{Until: until, Index: e.commit}
}

// Covers reports whether a read is linearizable of a state machine that has applied up to an index: if now was read after the read was asked
// for, and l was found, also after that, to be the newest. However long whoever reads is paused before and after, this node was the only
// leader when l was found, and what was acknowledged by then is in that state. Times with two readings must agree in both: the monotonic
// clock stands still while a machine sleeps.
func (l *Leased) Covers(now time.Time, applied uint64) bool {
	return l != nil && now.Before(l.Until) && now.Round(0).Before(l.Until.Round(0)) && applied >= l.Index
}
