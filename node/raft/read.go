package raft

import (
	"math"
	"time"
)

// reads are the linearizable reads of a leader that wait for a quorum (dissertation section 6.4). Reads that arrive while a round
// is under way share the next one, so that there is one round at a time however many reads there are.
type reads struct {
	// begun is the newest round: a request to a peer confirms it if it was sent after the round began.
	begun uint64
	// confirmed is the newest round that a quorum answered. confirmed <= begun.
	confirmed uint64
	// asked wait for round begun; waiting for the one after it, or for the leader's first commit.
	asked, waiting []read
}

type read struct {
	id ReadID
	// index to apply first: the commit index when the round began.
	index uint64
}

func (r *reads) all() []read { return append(r.asked, r.waiting...) }

// Read begins a linearizable read. Output.Reads tells when it is decided. It returns false if the node does not lead.
func (e *Engine) Read(now time.Time, id ReadID) bool {
	e.step(now)
	if e.leading == nil {
		return false
	}
	r := &e.leading.reads
	r.waiting = append(r.waiting, read{id: id})
	e.startReads()
	return true
}

// startReads begins a round for the reads that wait. A new leader does not know what is committed until its first own
// entry is.
func (e *Engine) startReads() {
	if e.leading == nil || !e.Serving() {
		return
	}
	r := &e.leading.reads
	if len(r.waiting) == 0 || r.begun != r.confirmed {
		return
	}
	r.begun++
	r.asked, r.waiting = r.waiting, r.asked[:0]
	for i := range r.asked {
		r.asked[i].index = e.commit
	}
	e.out.Replicate = true
	e.advanceReads()
}

// advanceReads decides the reads whose round a quorum has answered.
func (e *Engine) advanceReads() {
	if e.leading == nil {
		return
	}
	r := &e.leading.reads
	if r.confirmed == r.begun {
		return
	}
	round := e.Membership().QuorumValue(func(m Member) uint64 {
		if m.Peer == e.cfg.Self {
			return math.MaxUint64
		}
		t := e.leading.targets[m.ID]
		if t == nil || t.peer != m.Peer || t.suspect {
			return 0
		}
		return t.round
	})
	if round < r.begun {
		return
	}
	r.confirmed = r.begun
	for _, done := range r.asked {
		e.out.Reads = append(e.out.Reads, ReadReady{ID: done.id, Index: done.index})
	}
	r.asked = r.asked[:0]
	e.startReads()
}
