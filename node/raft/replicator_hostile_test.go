package raft

import (
	"testing"
)

// purgedFollow is a replicator whose peer is empty, while the leader's log begins after 4; a snapshot of 5 can be offered.
func purgedFollow(t *testing.T) *follow {
	t.Helper()
	f := newFollow(t, terms{1, 1, 1, 1, 1, 1})
	f.conflict(f.next(false), LogID{})
	if need, ok := f.r.Next(f.now); !ok || need.Prev != 0 {
		t.Fatalf("%+v", need)
	}
	f.r.Purged(LogID{Term: 1, Index: 4})
	f.offerable()
	return f
}

func (f *follow) offerable() {
	target := f.target()
	target.Snapshot = ref(1, 5)
	f.r.Update(target)
}

// offer takes an offer and sends it.
func (f *follow) offer() Send {
	f.Helper()
	s, ok := f.r.Next(f.now)
	if !ok || !s.Install {
		f.Fatalf("want an offer, got %+v, %t", s, ok)
	}
	f.r.Sent(f.now, s, s.Snapshot.Last, s.Snapshot.Last, 0)
	f.check()
	return s
}

// beat has the peer answer a heartbeat, so that who is paused goes on.
func (f *follow) beat() {
	f.Helper()
	f.wait(heartbeat)
	f.matched(f.next(true), 0)
}

func TestReplicatorServesReadsWhileASnapshotIsFetched(t *testing.T) {
	f := purgedFollow(t)
	round := func(n uint64) {
		target := f.target()
		target.Snapshot, target.Round = ref(1, 5), n
		f.r.Update(target)
	}
	round(1) // begins before the offer is made: its answer takes long
	f.offer()
	if p := f.matched(f.next(true), 0); p.Round != 1 {
		t.Fatalf("round %d", p.Round)
	}
	round(2)
	if p := f.matched(f.next(true), 0); p.Round != 2 {
		t.Fatalf("round %d", p.Round)
	}
	f.quiet()
}

func TestReplicatorOffersAgainWhatBecameLost(t *testing.T) {
	for name, lose := range map[string]func(f *follow, s Send){
		"no answer":         func(f *follow, s Send) { f.r.Failed(s.ID) },
		"not installed":     func(f *follow, s Send) { f.answer(s, AppendResponse{Status: AppendInstalling}, 7) },
		"damaged":           func(f *follow, s Send) { f.answer(s, AppendResponse{Status: AppendDamaged}, 7) },
		"a conflict":        func(f *follow, s Send) { f.conflict(s, LogID{}) },
		"an unknown status": func(f *follow, s Send) { f.answer(s, AppendResponse{Status: 99}, 7) },
		"in another's name": func(f *follow, s Send) { f.answer(s, AppendResponse{Status: AppendMatched, From: member(9)}, 7) },
		"another's old term": func(f *follow, s Send) {
			f.r.target.Term = 5
			f.answer(s, AppendResponse{Status: AppendMatched, Term: 1}, 7)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := purgedFollow(t)
			for range 3 {
				lose(f, f.offer())
				f.check()
				f.quiet() // and not at once again
				f.beat()
			}
			s := f.offer()
			f.answer(s, AppendResponse{Status: AppendMatched, Matched: LogID{Term: 1, Index: 5}}, 7)
			if next := f.next(false); next.Prev != 5 {
				t.Fatalf("%+v", next)
			}
			if f.r.Progress().Suspect != "" {
				t.Fatal(f.r.Progress().Suspect)
			}
		})
	}
}

func TestReplicatorRepeatsEntriesThatWereAnsweredLikeAnOffer(t *testing.T) {
	for _, status := range []AppendStatus{AppendInstalling, AppendDamaged, 0, 99} {
		f := started(t, terms{1})
		f.grow(1)
		first := f.next(false)
		f.answer(first, AppendResponse{Status: status}, 7)
		f.wait(heartbeat)
		f.matched(f.next(true), 1)
		if again := f.next(false); again.Lo != first.Lo {
			t.Errorf("status %d: first %+v, then %+v", status, first, again)
		}
		if p := f.r.Progress(); p.Damages != 0 {
			t.Errorf("status %d: %+v", status, p)
		}
	}
}

func TestReplicatorNeedsNoSnapshotForWhatThePeerTurnsOutToHave(t *testing.T) {
	f := started(t, terms{1})
	f.grow(2)
	first := f.next(false)
	f.grow(2)
	second := f.next(false)                      // overtakes the first one
	f.conflict(second, LogID{Term: 1, Index: 1}) // so the peer lacks 2
	f.r.Purged(LogID{Term: 1, Index: 3})         // which is gone
	f.quiet()
	if !f.r.Progress().NeedSnapshot {
		t.Fatal("it does not say so")
	}
	f.matched(first, 3)
	if s := f.next(false); s.Prev != 3 {
		t.Fatalf("%+v", s)
	}
	if p := f.r.Progress(); p.NeedSnapshot {
		t.Fatal("it still says that it needs one")
	}
}

func TestReplicatorCountsDamagedOffers(t *testing.T) {
	f := purgedFollow(t)
	for n := uint64(1); n <= 3; n++ {
		p := f.answer(f.offer(), AppendResponse{Status: AppendDamaged}, 7)
		if p.Damages != n || p.Damaged != (LogID{Term: 1, Index: 5}) {
			t.Fatalf("%+v", p)
		}
		f.beat()
	}
}

func TestReplicatorSendsAHeartbeatByHandAlsoWhenTheyAreOff(t *testing.T) {
	f := started(t, terms{1})
	target := f.target()
	target.Mute = true
	f.r.Update(target)
	f.wait(3 * heartbeat)
	f.quiet()
	target.Beat = 2
	f.r.Update(target)
	f.next(true)
	f.quiet()
	target.Mute = false
	f.r.Update(target)
	f.wait(heartbeat)
	f.next(true)
}

func TestReplicatorWithoutHeartbeatsGoesOnAfterALoss(t *testing.T) {
	f := started(t, terms{1})
	mute := func() {
		target := f.target()
		target.Mute = true
		f.r.Update(target)
	}
	f.grow(1)
	mute()
	first := f.next(false)
	f.r.Failed(first.ID)
	f.quiet()
	if at := f.r.Deadline(); at.After(f.now.Add(heartbeat)) {
		t.Fatal("it wants to be called only when its RaftCore is given up")
	}
	f.wait(heartbeat)
	f.matched(f.next(true), 1) // it asks whether the peer is back
	if again := f.next(false); again.Lo != first.Lo {
		t.Fatalf("%+v", again)
	}
	f.matched(Send{ID: f.r.lastID}, 2)
	f.wait(2 * heartbeat)
	f.quiet()
}

func TestReplicatorTakesANewHeartbeatInterval(t *testing.T) {
	f := started(t, terms{1})
	f.wait(heartbeat)
	target := f.target()
	target.HeartbeatInterval = 3 * heartbeat
	f.r.Update(target)
	f.matched(f.next(true), 1)
	f.wait(2 * heartbeat)
	f.quiet()
	f.wait(heartbeat)
	f.next(true)
}

func TestReplicatorBoundsHeartbeatsByHand(t *testing.T) {
	f := started(t, terms{1})
	target := f.target()
	for n := range uint64(100) {
		target.Beat = n + 1
		f.r.Update(target)
		if s, ok := f.r.Next(f.now); ok {
			f.r.Sent(f.now, s, s.Matched, s.Matched, 0)
			f.check()
		}
	}
	if f.r.heartbeats > maxHeartbeats {
		t.Fatalf("%d heartbeats to a silent peer", f.r.heartbeats)
	}
}
