package raft

import "time"

// What an operator, or a test, may tell an engine while it runs.

// Elect makes the node stand for election now. A leader, and who may not stand, ignores it. It reports whether the node stands.
func (e *Engine) Elect(now time.Time) bool {
	e.step(now)
	if e.leading != nil || !e.mayStand() || e.diskStalled() || e.bound(false) {
		return false
	}
	e.startPreVote()
	return true
}

// Heartbeat makes a leader send a heartbeat to every target now, also while they are switched off. It reports whether the node leads.
func (e *Engine) Heartbeat(now time.Time) bool {
	e.step(now)
	if e.leading == nil {
		return false
	}
	e.leading.beat++
	e.out.Replicate = true
	return true
}

// SetElections switches standing for election off and on. A node that does not stand still votes.
func (e *Engine) SetElections(on bool) {
	e.following.quiet = !on
	if !on {
		e.campaign = nil
	}
	e.out.Changed = true
}

// SetHeartbeats switches the heartbeats of a leader off and on. A target that did not answer is still asked whether it is back.
func (e *Engine) SetHeartbeats(on bool) {
	e.mute = !on
	e.out.Replicate = e.out.Replicate || e.leading != nil
}

// Settings that may be changed while a node runs.
type Settings struct {
	HeartbeatInterval, ElectionTimeout time.Duration
}

// Reload changes settings. Timers that run already keep their deadlines.
func (e *Engine) Reload(s Settings) {
	e.cfg.HeartbeatInterval, e.cfg.ElectionTimeout = s.HeartbeatInterval, s.ElectionTimeout
	e.out.Replicate = e.out.Replicate || e.leading != nil
}
