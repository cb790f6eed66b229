package raft

import (
	"testing"

	"pgregory.net/rapid"
)

func ref(term, index uint64) SnapshotRef {
	return SnapshotRef{Name: "m", Last: LogID{Term: term, Index: index}, Bytes: 1}
}

func (b *bench) offer(leader int, term uint64, s SnapshotRef) Output {
	b.Helper()
	b.to++
	b.e.Install(b.now, &InstallRequest{Term: term, Leader: member(leader), Snapshot: s}, b.to)
	return b.flush()
}

func TestInstallIgnoresOlderKeepsATailAndReplacesConflicts(t *testing.T) {
	// Older than what is committed: nothing to do.
	b := newBench(t, voters(3), terms{1, 1, 1})
	b.append(2, 2, LogID{Term: 1, Index: 3}, 3)
	if out := b.offer(2, 2, ref(1, 2)); out.Fetch != nil || len(out.AppendReplies) != 1 || out.AppendReplies[0].Response.Status != AppendMatched {
		t.Fatalf("%+v", out)
	}
	// Of a lower term: refused.
	if out := b.offer(2, 1, ref(1, 9)); out.Fetch != nil || out.AppendReplies[0].Response.Status != AppendRefused || out.AppendReplies[0].Response.Term != 2 {
		t.Fatalf("%+v", out)
	}
	// One whose last entry the log has: what follows it stays.
	b = newBench(t, voters(3), terms{1, 1, 1, 1})
	out := b.offer(2, 2, ref(1, 2))
	if out.Fetch == nil || *out.Fetch != ref(1, 2) || len(out.AppendReplies) != 0 {
		t.Fatalf("%+v", out)
	}
	if again := b.offer(2, 2, ref(1, 2)); again.Fetch != nil || len(again.AppendReplies) != 1 || again.AppendReplies[0].Response.Status != AppendInstalling {
		t.Fatalf("asked again it fetches again: %+v", again)
	}
	m := MembershipAt{ID: LogID{Term: 1, Index: 1}, Membership: voters(5)}
	b.e.Installed(b.now, LogID{Term: 1, Index: 2}, m, SettingAt{})
	out = b.flush()
	if b.e.LastLogID() != (LogID{Term: 1, Index: 4}) || b.e.Commit() != 2 || b.e.Membership() != m.Membership {
		t.Fatalf("log to %v, commit %d, %v", b.e.LastLogID(), b.e.Commit(), b.e.Membership())
	}
	if len(out.AppendReplies) != 1 || out.AppendReplies[0].Response.Matched != (LogID{Term: 1, Index: 2}) {
		t.Fatalf("%+v", out.AppendReplies)
	}
	// One that contradicts the log: all of it goes.
	b = newBench(t, voters(3), terms{1, 1, 1, 1})
	b.offer(2, 3, ref(2, 3))
	b.e.Installed(b.now, LogID{Term: 2, Index: 3}, m, SettingAt{})
	b.flush()
	if b.e.LastLogID() != (LogID{Term: 2, Index: 3}) || b.e.Commit() != 3 || b.e.DurableIndex() != 3 {
		t.Fatalf("log to %v, commit %d", b.e.LastLogID(), b.e.Commit())
	}
	b.append(2, 3, LogID{Term: 2, Index: 3}, 4, 3)
	b.wantCommit(4)
}

func TestAnInstallationAmongWritesThatAreNotDurable(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.slow = true
	b.append(2, 2, LogID{Term: 1, Index: 1}, 0, 2, 2) // 2 and 3, on their way to disk
	b.offer(2, 2, ref(2, 9))
	b.e.Installed(b.now, LogID{Term: 2, Index: 9}, MembershipAt{Membership: voters(3)}, SettingAt{})
	out := b.flush()
	if b.e.DurableIndex() != 9 || b.e.LastLogID().Index != 9 {
		t.Fatalf("durable to %d of %v", b.e.DurableIndex(), b.e.LastLogID())
	}
	_ = out
	b.e.Durable(b.now, 99) // late completions of what is gone
	b.flush()
	if b.e.DurableIndex() != 9 {
		t.Fatalf("durable to %d", b.e.DurableIndex())
	}
}

func TestNewerSnapshotSupersedesTheOneThatIsFetched(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.offer(2, 2, ref(2, 9))
	out := b.offer(2, 2, ref(2, 12))
	if out.Fetch == nil || out.Fetch.Last.Index != 12 || len(out.AppendReplies) != 1 {
		t.Fatalf("%+v", out)
	}
	b.e.FetchFailed(b.now, ref(2, 9), false) // the old one's end is not the new one's
	if current, ok := b.e.Installing(); !ok || current != ref(2, 12) {
		t.Fatal("it is forgotten")
	}
	b.e.FetchFailed(b.now, ref(2, 12), true)
	out = b.flush()
	if _, ok := b.e.Installing(); ok || len(out.AppendReplies) != 1 || out.AppendReplies[0].Response.Status != AppendDamaged {
		t.Fatalf("%+v", out)
	}
}

func TestPurgeFloorKeepsWhatTargetsNeed(t *testing.T) {
	b := serving(t, voters(3))
	b.propose(10)
	b.answered(11, 2, 3)
	if floor := b.e.PurgeFloor(); floor != 0 {
		t.Fatalf("without a snapshot the floor is %d", floor)
	}
	b.e.SetSnapshot(ref(b.e.Vote().Term, 8))
	if floor := b.e.PurgeFloor(); floor != 8 {
		t.Fatalf("floor %d, snapshot of 8", floor)
	}
	b.e.Progress(b.now, Progress{Peer: member(3), Worker: b.worker(3), Matched: LogID{Term: b.e.Vote().Term, Index: 11}, Acked: b.now, Installing: LogID{Term: 1, Index: 5}})
	b.flush()
	if floor := b.e.PurgeFloor(); floor != 5 {
		t.Fatalf("floor %d, n3 installs a snapshot of 5", floor)
	}
	b.e.Progress(b.now, Progress{Peer: member(3), Worker: b.worker(3), Acked: b.now, Damages: 1, Damaged: b.e.Snapshot().Last})
	out := b.flush()
	if !out.SnapshotDamaged || !out.NeedSnapshot || b.e.Snapshot() != (SnapshotRef{}) || b.e.PurgeFloor() != 0 {
		t.Fatalf("%+v, floor %d", out, b.e.PurgeFloor())
	}
}

// What it offered in an earlier leadership, others may have replaced and deleted since. What may be purged stays as it was: the newest snapshot is
// still somewhere.
func TestALeaderThatComesBackOffersNoSnapshotOfThePast(t *testing.T) {
	b := serving(t, voters(3))
	b.propose(10)
	b.answered(11, 2, 3)
	term := b.e.Vote().Term
	b.e.SetSnapshot(ref(term, 8))
	b.request(&AppendRequest{Term: term + 1, Leader: member(2), Prev: LogID{Term: term, Index: 11}, Commit: 11, Snapshot: LogID{Term: term, Index: 10}})
	b.wantRole(Follower)
	b.lead(2, 3)
	if b.e.Snapshot() != (SnapshotRef{}) || b.e.Replication()[0].Snapshot != (SnapshotRef{}) {
		t.Errorf("it offers %v, and n2 told it of one of 10", b.e.Snapshot().Last)
	}
	if known, floor := b.e.SnapshotKnown().Index, b.e.PurgeFloor(); known != 10 || floor != 10 {
		t.Errorf("it knows of a snapshot of %d, and purges up to %d", known, floor)
	}
	b.e.SetSnapshot(ref(term, 9)) // the newest that is there, whatever was said
	if b.e.Replication()[0].Snapshot != ref(term, 9) {
		t.Errorf("it offers %v", b.e.Snapshot().Last)
	}
}

func TestReplicatorOffersASnapshotInPlaceOfWhatIsPurged(t *testing.T) {
	f := newFollow(t, terms{1, 1, 1, 1, 1, 1})
	probe := f.next(false)
	f.conflict(probe, LogID{}) // the peer is empty
	need := f.next(false)
	if need.Prev != 0 {
		t.Fatalf("%+v", need)
	}
	f.r.Purged(LogID{Term: 1, Index: 4})
	f.quiet()
	if !f.r.Progress().NeedSnapshot {
		t.Fatal("it does not say that it needs one")
	}
	target := f.target()
	target.Snapshot = ref(1, 3) // older than what is purged
	f.r.Update(target)
	f.quiet()
	target.Snapshot = ref(1, 5)
	f.r.Update(target)
	s, ok := f.r.Next(f.now)
	if !ok || !s.Install || s.Snapshot != ref(1, 5) {
		t.Fatalf("%+v %t", s, ok)
	}
	f.r.Sent(f.now, s, s.Snapshot.Last, s.Snapshot.Last, 0)
	f.quiet() // one offer at a time
	if p := f.r.Progress(); p.NeedSnapshot || p.Installing != ref(1, 5).Last {
		t.Fatalf("%+v", p)
	}
	f.answer(s, AppendResponse{Status: AppendInstalling}, 7)
	f.quiet() // until a heartbeat is answered
	f.wait(heartbeat)
	f.matched(f.next(true), 0)
	if s, ok = f.r.Next(f.now); !ok || !s.Install {
		t.Fatalf("it is not offered again: %+v %t", s, ok)
	}
	f.r.Sent(f.now, s, s.Snapshot.Last, s.Snapshot.Last, 0)
	f.answer(s, AppendResponse{Status: AppendMatched, Matched: LogID{Term: 1, Index: 5}}, 7)
	if next := f.next(false); next.Prev != 5 || next.Lo != 6 {
		t.Fatalf("after the snapshot it sends %+v", next)
	}
	if p := f.r.Progress(); p.Installing != (LogID{}) || p.Matched.Index != 5 {
		t.Fatalf("%+v", p)
	}
}

func TestPurgedLogViewEqualsASlice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var log terms
		term := uint64(1)
		for range rapid.IntRange(1, 30).Draw(rt, "entries") {
			term += rapid.Uint64Range(0, 1).Draw(rt, "next term")
			log = append(log, term)
		}
		v, err := NewLogView(LogID{}, log.id(uint64(len(log))), log.Term)
		if err != nil {
			rt.Fatal(err)
		}
		purged := uint64(0)
		for range 3 {
			to := rapid.Uint64Range(0, uint64(len(log))).Draw(rt, "purge")
			if to > 0 {
				v.Purge(log.id(to))
				purged = max(purged, to)
			}
			if err := v.check(); err != nil {
				rt.Fatalf("purged to %d of %v: %v", to, log, err)
			}
			for index := uint64(0); index <= uint64(len(log))+1; index++ {
				got, ok := v.Term(index)
				want, wantOK := uint64(0), index >= purged && index <= uint64(len(log))
				if wantOK && index > 0 {
					want = log[index-1]
				}
				if got != want || ok != wantOK {
					rt.Fatalf("term of %d is %d %t, want %d %t", index, got, ok, want, wantOK)
				}
			}
		}
	})
}
