package raft

import (
	"errors"
	"testing"
	"time"
)

// terms is a leader's log, given by the term of each entry.
type terms []uint64

func (l terms) Term(index uint64) (uint64, error) {
	if index == 0 {
		return 0, nil
	}
	if index > uint64(len(l)) {
		return 0, errors.New("out of range")
	}
	return l[index-1], nil
}

func (l terms) id(index uint64) LogID {
	term, _ := l.Term(index)
	return LogID{Term: term, Index: index}
}

// follow drives a replicator over a leader's log, with entries of one byte.
type follow struct {
	*testing.T
	r   *Replicator
	log terms
	now time.Time
}

var (
	followPeer = Peer{ID: "n2", Incarnation: 2}
	zero       = time.Unix(1_000_000, 0)
)

const (
	heartbeat = 50 * time.Millisecond
	timeout   = 500 * time.Millisecond
)

func newFollow(t *testing.T, log terms) *follow {
	f := &follow{T: t, log: log, now: zero}
	f.r = NewReplicator(ReplicatorConfig{HeartbeatInterval: heartbeat, MaxInFlight: 4, MaxInFlightBytes: 10, MaxMessageBytes: 5},
		f.target(), f.now)
	f.matched(f.next(true), 0) // the peer hears of its leader before anything else
	return f
}

func (f *follow) target() Target {
	last := f.log.id(uint64(len(f.log)))
	return Target{Peer: followPeer, Worker: 1, Term: last.Term, Last: last, Until: f.now.Add(timeout)}
}

// next takes one message, and wants it to be a heartbeat or not.
func (f *follow) next(beat bool) Send {
	f.Helper()
	s, ok := f.r.Next(f.now)
	if !ok || s.Heartbeat != beat {
		f.Fatalf("want a message (heartbeat %v), got %+v, %v", beat, s, ok)
	}
	hi := min(s.Hi, s.Lo+uint64(s.MaxBytes))
	f.r.Sent(f.now, s, f.log.id(s.Prev), f.log.id(max(hi, 1)-1), int(hi-s.Lo))
	f.check()
	return s
}

func (f *follow) quiet() {
	f.Helper()
	if s, ok := f.r.Next(f.now); ok {
		f.Fatalf("want silence, got %+v", s)
	}
	if !f.r.Deadline().After(f.now) {
		f.Fatalf("there is nothing to send, yet it wants to be called again at once")
	}
}

func (f *follow) check() {
	f.Helper()
	if err := f.r.Check(); err != nil {
		f.Fatal(err)
	}
}

func (f *follow) answer(s Send, resp AppendResponse, boot uint64) Progress {
	f.Helper()
	if resp.From == (Peer{}) {
		resp.From = followPeer
	}
	if resp.Term == 0 {
		resp.Term = f.r.target.Term
	}
	p, err := f.r.Answered(s.ID, &resp, boot, f.log)
	if err != nil {
		f.Fatal(err)
	}
	f.check()
	return p
}

func (f *follow) matched(s Send, index uint64) Progress {
	f.Helper()
	return f.answer(s, AppendResponse{Status: AppendMatched, Matched: f.log.id(index)}, 7)
}

func (f *follow) conflict(s Send, hint LogID) Progress {
	f.Helper()
	return f.answer(s, AppendResponse{Status: AppendConflict, Hint: hint}, 7)
}

func (f *follow) wait(d time.Duration) { f.now = f.now.Add(d) }

// started is a replicator whose peer has matched the whole log.
func started(t *testing.T, log terms) *follow {
	f := newFollow(t, log)
	f.matched(f.next(false), uint64(len(log)))
	return f
}

// grow adds entries of the newest term to the leader's log.
func (f *follow) grow(n int) {
	for range n {
		f.log = append(f.log, f.log[len(f.log)-1])
	}
	f.r.Update(f.target())
}
