package raft

import (
	"errors"
	"testing"
	"time"
)

func TestReplicatorProbesOneMessageAtATimeThenPipelines(t *testing.T) {
	f := newFollow(t, terms{1, 1, 1})
	f.r.cfg.MaxMessageBytes = 1
	first := f.next(false)
	if first.Prev != 2 || first.Lo != 3 {
		t.Fatalf("it begins at the end of the leader's log, not with %+v", first)
	}
	f.grow(10)
	f.quiet() // still probing
	p := f.matched(first, 3)
	if p.Matched != f.log.id(3) {
		t.Fatalf("matched %v", p.Matched)
	}
	for want := uint64(4); want <= 7; want++ {
		if s := f.next(false); s.Prev != want-1 || s.Lo != want {
			t.Fatalf("pipeline sends %+v, want entry %d", s, want)
		}
	}
	f.quiet() // four messages are in flight
}

func TestReplicatorBoundsBytesInFlight(t *testing.T) {
	f := started(t, terms{1})
	f.grow(30)
	var sends []Send
	for range 2 {
		sends = append(sends, f.next(false))
	}
	f.quiet() // 2 messages of 5 bytes
	f.matched(sends[0], 6)
	if s := f.next(false); s.Lo != 12 || s.MaxBytes != 5 {
		t.Fatalf("after an answer it sends %+v", s)
	}
	f.quiet()
}

func TestReplicatorSendsALargeEntryAlone(t *testing.T) {
	f := started(t, terms{1})
	f.grow(2)
	s, ok := f.r.Next(f.now)
	if !ok {
		t.Fatal("nothing to send")
	}
	f.r.Sent(f.now, s, f.log.id(1), f.log.id(2), 1000) // one entry above all limits
	f.quiet()
	f.matched(s, 2)
	if s := f.next(false); s.Lo != 3 {
		t.Fatalf("then it sends %+v", s)
	}
}

func TestReplicatorHeartbeatsGoBesideAppends(t *testing.T) {
	f := started(t, terms{1})
	// A peer whose disk is slow answers no append for long. Heartbeats, which it can answer at once, must go on although there is
	// always something to replicate.
	beats := 0
	for range 20 {
		f.wait(heartbeat / 2)
		f.grow(1)
		for {
			s, ok := f.r.Next(f.now)
			if !ok {
				break
			}
			if f.next(s.Heartbeat); s.Heartbeat {
				beats++
			}
		}
	}
	if beats != 10 {
		t.Errorf("%d heartbeats in 10 intervals", beats)
	}
}

func TestReplicatorHeartbeatCarriesOnlyWhatIsMatched(t *testing.T) {
	f := started(t, terms{1, 1})
	f.grow(3)
	f.next(false)
	f.wait(heartbeat)
	if s := f.next(true); s.Prev != 2 || s.Lo != s.Hi || s.Matched != f.log.id(2) {
		t.Errorf("heartbeat %+v", s)
	}
}

func TestReplicatorIsSilentWhenTheCoreIsNotHeardOf(t *testing.T) {
	f := started(t, terms{1})
	f.wait(timeout + time.Millisecond)
	f.quiet() // and does not spin
	f.wait(10 * timeout)
	f.quiet()
	f.r.Update(f.target())
	f.next(true)
}

func TestReplicatorConflictGoesBackToTheHint(t *testing.T) {
	for _, test := range []struct {
		name string
		log  terms
		hint LogID
		want uint64 // the next index to send
	}{
		{"short log", terms{1, 1, 1, 1, 1, 4}, LogID{Term: 1, Index: 2}, 3},
		{"empty log", terms{1, 1, 1, 1, 1, 4}, LogID{}, 1},
		{"a term the leader does not have", terms{1, 1, 1, 4, 4, 5}, LogID{Term: 2, Index: 5}, 4},
		{"terms newer than the leader's at that place", terms{1, 1, 1, 1, 1, 6}, LogID{Term: 5, Index: 4}, 5},
		{"terms older than all of the leader's", terms{3, 3, 3, 3, 3, 4}, LogID{Term: 2, Index: 5}, 1},
		{"a hint beyond what was asked", terms{1, 1, 1, 1, 1, 4}, LogID{Term: 9, Index: 99}, 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFollow(t, test.log)
			f.conflict(f.next(false), test.hint)
			if s := f.next(false); s.Lo != test.want || s.Prev != test.want-1 {
				t.Errorf("sends %+v, want from %d", s, test.want)
			}
			f.quiet()
		})
	}
}

func TestReplicatorConflictNeverGoesBehindWhatMatched(t *testing.T) {
	f := started(t, terms{1, 1, 1})
	f.grow(10)
	first, second := f.next(false), f.next(false)
	f.matched(first, 8)
	f.conflict(second, LogID{Term: 1, Index: 1}) // it overtook the first
	if s := f.next(false); s.Lo != 9 {
		t.Errorf("sends %+v", s)
	}
}

func TestReplicatorPartialSuccess(t *testing.T) {
	f := started(t, terms{1})
	f.grow(4)
	if p := f.matched(f.next(false), 3); p.Matched.Index != 3 {
		t.Errorf("matched %v", p.Matched)
	}
	if s := f.next(false); s.Lo != 4 {
		t.Errorf("then it sends %+v", s)
	}
}

func TestReplicatorBelievesNoMoreThanItSent(t *testing.T) {
	f := newFollow(t, terms{1, 1, 1})
	s := f.next(false)
	f.grow(5)
	if p := f.matched(s, 7); p.Matched.Index != 3 {
		t.Errorf("matched %v, but only 3 was sent", p.Matched)
	}
}

func TestReplicatorLossPausesUntilThePeerAnswers(t *testing.T) {
	f := started(t, terms{1})
	f.grow(10)
	first, second := f.next(false), f.next(false)
	f.r.Failed(first.ID)
	f.check()
	f.quiet()
	f.r.Failed(second.ID) // of the epoch before
	f.wait(heartbeat)
	f.matched(f.next(true), 1)
	if s := f.next(false); s.Lo != 2 {
		t.Errorf("after the pause it sends %+v", s)
	}
	f.quiet() // and probes again
}

func TestReplicatorLostHeartbeatsChangeNothing(t *testing.T) {
	f := started(t, terms{1})
	f.wait(heartbeat)
	f.r.Failed(f.next(true).ID)
	f.grow(1)
	f.next(false)
}

func TestReplicatorStaleAnswers(t *testing.T) {
	f := started(t, terms{1, 1, 1})
	f.grow(10)
	first, second := f.next(false), f.next(false)
	f.r.Failed(first.ID)
	// The second one was received after all: it is true, whenever it is heard.
	if p := f.matched(second, 13); p.Matched.Index != 13 {
		t.Errorf("matched %v", p.Matched)
	}
	p := f.matched(first, 8) // unknown by now
	if p.Matched.Index != 13 {
		t.Errorf("an old answer moved progress back to %v", p.Matched)
	}
	if _, err := f.r.Answered(999, &AppendResponse{From: followPeer, Status: AppendMatched}, 7, f.log); err != nil {
		t.Error(err)
	}
	f.check()
}

func TestReplicatorAnswersTwice(t *testing.T) {
	f := newFollow(t, terms{1, 1, 1})
	s := f.next(false)
	f.conflict(s, LogID{})
	again := f.next(false)
	f.conflict(s, LogID{Term: 1, Index: 2}) // a copy
	f.matched(again, 3)
}

func TestReplicatorRounds(t *testing.T) {
	f := started(t, terms{1})
	f.quiet()
	target := f.target()
	target.Round = 1
	f.r.Update(target)
	first := f.next(true) // at once, not with the next heartbeat
	f.quiet()
	target.Round = 2
	f.r.Update(target)
	second := f.next(true)
	if p := f.matched(first, 1); p.Round != 1 {
		t.Errorf("round %d confirmed by a message that was sent before round 2 began", p.Round)
	}
	if p := f.matched(second, 1); p.Round != 2 {
		t.Errorf("round %d", p.Round)
	}
}

func TestReplicatorBoundsRoundsOfASilentPeer(t *testing.T) {
	f := started(t, terms{1})
	target := f.target()
	n := 0
	for range 100 {
		target.Round++
		f.r.Update(target)
		if _, ok := f.r.Next(f.now); ok {
			f.next(true)
			n++
		}
	}
	if n != maxHeartbeats {
		t.Errorf("%d messages to a peer that is silent", n)
	}
	f.wait(heartbeat)
	f.next(true) // who may be alive must know its leader
}

func TestReplicatorAckedIsWhenTheRequestWasSent(t *testing.T) {
	f := newFollow(t, terms{1})
	sent := f.now
	s := f.next(false)
	f.wait(time.Hour)
	if p := f.matched(s, 1); !p.Acked.Equal(sent) {
		t.Errorf("acked %v, sent %v", p.Acked, sent)
	}
}

func TestReplicatorTriesAgainAfterTheLogCouldNotBeRead(t *testing.T) {
	f := newFollow(t, terms{1, 1, 1})
	s := f.next(false)
	if _, err := f.r.Answered(s.ID, &AppendResponse{From: followPeer, Term: 1, Status: AppendConflict, Hint: f.log.id(1)}, 7, brokenLog{}); err == nil {
		t.Fatal("no error")
	}
	f.r.Unsendable()
	f.check()
	f.quiet()
	f.wait(heartbeat)
	beat := f.next(true)
	f.quiet()
	f.matched(beat, 0)
	if again := f.next(false); again.Lo != 3 {
		t.Errorf("sends %+v", again)
	}
}

func TestReplicatorKnowsEntriesOfAnotherLeader(t *testing.T) {
	// The leader of term 3 is none any more. Its worker still reads the log, which has become another one's, perhaps between two reads.
	f := newFollow(t, terms{1, 3, 3})
	for name, test := range map[string]struct {
		prev LogID
		log  []uint64
		want bool
	}{
		"its own":                    {LogID{1, 1}, []uint64{3, 3}, false},
		"a later leader's":           {LogID{1, 1}, []uint64{3, 4}, true},
		"older ones behind a newer":  {LogID{3, 2}, []uint64{2}, true},
		"what all leaders must have": {LogID{1, 1}, []uint64{1, 1}, false},
	} {
		var entries []Entry
		for i, term := range test.log {
			entries = append(entries, Entry{ID: LogID{Term: term, Index: test.prev.Index + uint64(i) + 1}})
		}
		if got := f.r.Foreign(test.prev, entries); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

type brokenLog struct{}

func (brokenLog) Term(uint64) (uint64, error) { return 0, errors.New("disk is broken") }

func TestReplicatorOfAnEmptyLog(t *testing.T) {
	f := &follow{T: t, now: zero}
	f.r = NewReplicator(ReplicatorConfig{HeartbeatInterval: heartbeat, MaxInFlight: 1, MaxInFlightBytes: 1, MaxMessageBytes: 1},
		Target{Peer: followPeer, Worker: 1, Term: 1, Until: zero.Add(timeout)}, zero)
	f.check()
	f.next(true)
	f.quiet()
}

// A new leader's first probe is lost, and meanwhile its log is purged beyond what it knows of the peer: it must not think that the peer
// needs a snapshot.
func TestALostProbeIsRepeatedWhereItWas(t *testing.T) {
	f := newFollow(t, terms{1, 1, 1})
	first := f.next(false)
	f.r.Failed(first.ID)
	f.wait(heartbeat)
	f.matched(f.next(true), 0)
	if again := f.next(false); again.Prev != first.Prev || again.Lo != first.Lo {
		t.Fatalf("first %+v, then %+v", first, again)
	}
}
