package raft

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// Tests of what goes wrong at the meeting points of membership changes, transfer, snapshots and purge.

func TestARemovedLeaderHandsOverToWhoHasTheNewestLog(t *testing.T) {
	m := voters(4)
	b := newBench(t, m, nil)
	b.lead(2, 3, 4)
	b.answered(1, 2, 3, 4)
	b.change(Change{Voters: peersOf(2, 3, 4)})
	b.answered(2, 2, 3, 4) // the last configuration is appended now; all have as much
	// n2 goes silent. n3 and n4 commit.
	b.answered(3, 3)
	b.e.Progress(b.now, Progress{Peer: member(4), Worker: b.worker(4), Matched: b.e.LastLogID(), Acked: b.now})
	out := b.flush()
	b.wantCommit(3)
	b.wantRole(Follower)
	if len(out.TimeoutNow) != 1 || out.TimeoutNow[0].To == member(2) {
		t.Fatalf("n2 lacks the last configuration and is told to stand: %+v", out.TimeoutNow)
	}
}

func TestARemovedLeaderHandsOverToWhomItWasTransferring(t *testing.T) {
	for _, told := range []bool{false, true} {
		b := serving(t, voters(3))
		b.change(Change{Voters: peersOf(2, 3)})
		b.answered(2, 2, 3)
		if told {
			b.answered(3, 3)
		}
		if err := b.e.Transfer(b.now, "n3"); err != nil {
			t.Fatal(err)
		}
		stood := len(b.flush().TimeoutNow)
		if told != (stood == 1) {
			t.Fatalf("told %d", stood)
		}
		for i, index := range map[int]uint64{2: 3, 3: 3} {
			if b.e.Role() == Leader {
				b.e.Progress(b.now, Progress{Peer: member(i), Worker: b.worker(i), Matched: LogID{Term: b.e.Vote().Term, Index: index}, Acked: b.now})
				for _, s := range b.flush().TimeoutNow {
					stood++
					if s.To != member(3) {
						t.Errorf("told %v too", s.To)
					}
				}
			}
		}
		b.wantRole(Follower)
		if stood != 1 {
			t.Errorf("told already: %t; told %d times", told, stood)
		}
	}
}

func TestASnapshotThatIsBuiltAgainOfTheSameEntryIsNotForgotten(t *testing.T) {
	b := serving(t, voters(3))
	b.propose(4)
	b.answered(5, 2)
	term := b.e.Vote().Term
	b.e.SetSnapshot(ref(term, 5))
	p := Progress{Peer: member(3), Worker: b.worker(3), Acked: b.now, Damaged: LogID{Term: term, Index: 5}, Damages: 1}
	b.e.Progress(b.now, p)
	if !b.flush().SnapshotDamaged {
		t.Fatal("not told")
	}
	again := ref(term, 5)
	again.Name = "again"
	b.e.SetSnapshot(again)
	b.e.Progress(b.now, p) // only what it said before
	if out := b.flush(); out.SnapshotDamaged || b.e.Snapshot() != again {
		t.Fatal("the new one is forgotten for what was said of the old one")
	}
	p.Damages++
	b.e.Progress(b.now, p)
	if !b.flush().SnapshotDamaged {
		t.Fatal("the new one is damaged as well, and nobody cares")
	}
}

func TestTimeoutNowOfNobodyIsRefused(t *testing.T) {
	b := newBench(t, voters(3), terms{1}) // it knows of no leader
	b.e.TimeoutNow(b.now, &TimeoutNowRequest{Term: 1}, 3)
	if out := b.flush(); out.TimeoutNowReplies[0].Response.Standing || b.e.Role() != Follower {
		t.Fatal("it stands because nobody told it")
	}
}

func TestTimeoutNowIsRefusedByWhoMayNotStand(t *testing.T) {
	for name, prepare := range map[string]func(b *bench){
		"elections are off": func(b *bench) { b.e.SetElections(false) },
		"disk is stalled": func(b *bench) {
			b.slow = true
			b.append(2, 1, LogID{Term: 1, Index: 1}, 0, 1)
			b.now = b.now.Add(2 * timeout)
		},
		"it leads": func(b *bench) { b.lead(2, 3) },
	} {
		b := newBench(t, voters(3), terms{1})
		b.append(2, 1, LogID{Term: 1, Index: 1}, 0)
		prepare(b)
		was := b.e.Vote()
		b.e.TimeoutNow(b.now, &TimeoutNowRequest{Term: was.Term, Leader: member(2)}, 3)
		if out := b.flush(); out.TimeoutNowReplies[0].Response.Standing || b.e.Vote() != was {
			t.Errorf("%s, yet it stands", name)
		}
	}
	m := voters(3)
	m.Members[0].Voter = false
	b := newBench(t, m, terms{1})
	b.append(2, 1, LogID{Term: 1, Index: 1}, 0)
	b.e.TimeoutNow(b.now, &TimeoutNowRequest{Term: 1, Leader: member(2)}, 3)
	if b.flush(); b.e.Role() != Follower {
		t.Error("a learner stands")
	}
}

func TestAnAbsurdSnapshotInAnAppendChangesNothing(t *testing.T) {
	b := newBench(t, voters(3), terms{1, 1, 1})
	known := LogID{Term: 1, Index: 3}
	b.request(&AppendRequest{Term: 5, Leader: member(2), Prev: known, Commit: 3, Snapshot: known})
	if b.e.SnapshotKnown() != known || b.e.PurgeFloor() != 3 {
		t.Fatalf("%v, floor %d", b.e.SnapshotKnown(), b.e.PurgeFloor())
	}
	for _, absurd := range []LogID{{Term: 5}, {Index: 3}, {Term: 9, Index: 3}, {Term: 1, Index: MaxIndex + 1}} {
		out := b.request(&AppendRequest{Term: 5, Leader: member(2), Prev: known, Commit: 3, Snapshot: absurd})
		if len(out.Violations) != 1 || b.e.SnapshotKnown() != known {
			t.Errorf("%v is believed: %v", absurd, b.e.SnapshotKnown())
		}
	}
}

func TestPurgingWaitsForNoTargetThatIsGone(t *testing.T) {
	b := serving(t, voters(3))
	b.propose(10)
	b.answered(11, 2)
	term := b.e.Vote().Term
	b.e.SetSnapshot(ref(term, 10))
	install := Progress{Peer: member(3), Worker: b.worker(3), Acked: b.now, Installing: LogID{Term: term, Index: 5}}
	b.e.Progress(b.now, install)
	b.flush()
	if floor := b.e.PurgeFloor(); floor != 5 {
		t.Fatalf("floor %d", floor)
	}
	// It is cut off for a moment, then for good.
	b.keep(2, 2*timeout)
	if floor := b.e.PurgeFloor(); floor != 5 {
		t.Fatalf("floor %d after a moment of silence", floor)
	}
	b.keep(2, installPatience*timeout)
	if floor := b.e.PurgeFloor(); floor != 10 {
		t.Fatalf("floor %d: the log is kept for ever for a target that is gone", floor)
	}
	// It comes back, and what it needs is kept again, until it turns out not to be what it was.
	install.Acked = b.now
	b.e.Progress(b.now, install)
	b.flush()
	if floor := b.e.PurgeFloor(); floor != 5 {
		t.Fatalf("floor %d", floor)
	}
	install.Suspect = "its log went back"
	b.e.Progress(b.now, install)
	b.flush()
	if floor := b.e.PurgeFloor(); floor != 10 {
		t.Fatalf("floor %d for a suspect", floor)
	}
}

// keep lets time pass while members answer.
func (b *bench) keep(i int, d time.Duration) {
	b.Helper()
	for end := b.now.Add(d); b.now.Before(end); {
		b.tick(timeout / 4)
		b.answered(b.e.LastLogID().Index, i)
	}
}

// A target that has installed a snapshot still lacks what was written meanwhile. If that were purged as soon as there is a newer snapshot, it
// would need that one, and so on.
func TestPurgingWaitsUntilATargetHasCaughtUpAfterItsSnapshot(t *testing.T) {
	b := serving(t, voters(3))
	b.propose(10)
	b.answered(11, 2)
	term := b.e.Vote().Term
	b.e.SetSnapshot(ref(term, 10))
	p := Progress{Peer: member(3), Worker: b.worker(3), Acked: b.now, Installing: LogID{Term: term, Index: 5}}
	b.e.Progress(b.now, p)
	p.Installing, p.Matched = LogID{}, LogID{Term: term, Index: 5}
	b.e.Progress(b.now, p)
	b.flush()
	if floor := b.e.PurgeFloor(); floor != 5 {
		t.Fatalf("floor %d: what n3 gets next is purged", floor)
	}
	b.answered(8, 3)
	if floor := b.e.PurgeFloor(); floor != 8 {
		t.Fatalf("floor %d", floor)
	}
	b.answered(10, 3)
	b.answered(11, 3)
	b.propose(5)
	b.answered(16, 2)
	b.e.SetSnapshot(ref(term, 14))
	if floor := b.e.PurgeFloor(); floor != 14 { // it is like any other now
		t.Fatalf("floor %d", floor)
	}
}

func TestAnOldLeaderThatWasRemovedIsToldAlthoughItsOwnConfigurationIsLater(t *testing.T) {
	// n9 led in term 1 and appended a configuration that nobody got, at 9. The others removed it, at 5, in term 2.
	removed := LogID{Term: 2, Index: 5}
	log := terms{1, 1, 1, 2, 2}
	b := restore(t, Restored{Vote: Vote{Term: 2}, Log: view(t, log), Committed: removed, Memberships: []MembershipAt{{ID: removed, Membership: voters(3)}}})
	old := terms{1, 1, 1, 1, 1, 1, 1, 1, 1}
	b.to++
	b.e.VoteRequested(b.now, &VoteRequest{Term: 2, Candidate: member(9), Last: old.id(9), Pre: true}, b.to)
	hint := b.flush().VoteReplies[0].Response
	if hint.Granted || hint.Removed == 0 {
		t.Fatalf("%+v", hint)
	}
	m := voters(3)
	b = restore(t, Restored{Vote: Vote{Term: 1}, Log: view(t, old), Committed: old.id(3),
		Memberships: []MembershipAt{{Membership: m}, {ID: old.id(9), Membership: m}}})
	b.stand()
	hint.From = member(2)
	b.e.VoteAnswer(b.now, &hint)
	b.flush()
	if !b.e.Removed() {
		t.Fatal("it will ask for ever")
	}
}

func TestAHintOfRemovalCountsOnlyWhileStanding(t *testing.T) {
	b := newBench(t, voters(3), terms{1, 1})
	b.stand()
	b.append(2, 1, LogID{Term: 1, Index: 2}, 0) // a leader is there after all
	b.e.VoteAnswer(b.now, &VoteResponse{From: member(3), Term: 1, Pre: true, Removed: 9})
	if b.flush(); b.e.Removed() {
		t.Fatal("a late answer, older than the leader's word")
	}
	b.stand()
	b.e.VoteAnswer(b.now, &VoteResponse{From: member(8), Term: 1, Pre: true, Removed: 9}) // a stranger
	b.e.VoteAnswer(b.now, &VoteResponse{From: member(3), Term: 1, Pre: true, Removed: MaxIndex + 1})
	if b.flush(); b.e.Removed() {
		t.Fatal("it believes strangers and absurd indexes")
	}
	b.e.VoteAnswer(b.now, &VoteResponse{From: member(3), Term: 7, Pre: true, Removed: 9}) // with a newer term
	if b.flush(); !b.e.Removed() || b.e.Vote().Term != 7 || b.e.Elect(b.now) {
		t.Fatalf("removed %t in %v", b.e.Removed(), b.e.Vote())
	}
	b.append(2, 7, LogID{Term: 1, Index: 2}, 0)
	if b.e.Removed() || !b.e.Elect(b.now) {
		t.Fatal("the leader counts it among its members again")
	}
	b.flush()
}

func TestAnInstallationMakesNoOldAnswerUntrue(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.slow = true
	b.append(2, 2, LogID{Term: 1, Index: 1}, 0, 2, 2) // from n2, who waits for an answer
	asked := b.to
	b.offer(3, 3, ref(3, 9)) // n3 leads now, and its log has something else there
	b.e.Installed(b.now, LogID{Term: 3, Index: 9}, MembershipAt{Membership: voters(3)}, SettingAt{})
	out := b.flush()
	b.e.Durable(b.now, 99)
	replies := slices.Concat(out.AppendReplies, b.flush().AppendReplies)
	for _, r := range replies {
		if r.To == asked && r.Response.Status != AppendRefused {
			t.Fatalf("n2 is told that its entries are on disk: %+v", r.Response)
		}
	}
	if len(replies) != 2 {
		t.Fatalf("%d answers", len(replies))
	}
}

// The leader's own entries are in its snapshot: who has them not on disk yet when the snapshot comes did not refuse them.
func TestAnInstallationAnswersThePresentLeadersAppends(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.slow = true
	b.append(2, 2, LogID{Term: 1, Index: 1}, 0, 2, 2)
	asked := b.to
	b.offer(2, 2, ref(2, 9))
	b.e.Installed(b.now, LogID{Term: 2, Index: 9}, MembershipAt{Membership: voters(3)}, SettingAt{})
	out := b.flush()
	b.e.Durable(b.now, 99)
	for _, r := range slices.Concat(out.AppendReplies, b.flush().AppendReplies) {
		if r.To == asked && (r.Response.Status != AppendMatched || r.Response.Matched.Index != 3) {
			t.Fatalf("%+v", r.Response)
		}
	}
}

func TestAnInstallationWaitsForTheVoteToBeDurable(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.slow = true
	b.offer(2, 7, ref(6, 9)) // a new term
	b.e.Installed(b.now, LogID{Term: 6, Index: 9}, MembershipAt{Membership: voters(3)}, SettingAt{})
	if out := b.flush(); len(out.AppendReplies) != 0 {
		t.Fatal("it tells of a term that is not on its disk")
	}
	b.e.Durable(b.now, 1)
	if out := b.flush(); len(out.AppendReplies) != 1 || out.AppendReplies[0].Response.Matched.Index != 9 {
		t.Fatalf("%+v", out.AppendReplies)
	}
}

func TestANameThatStandsTwiceIsRefused(t *testing.T) {
	b := serving(t, voters(3))
	b.change(Change{Voters: peersOf(1, 2, 3), Learners: peersOf(4)})
	b.answered(2, 2, 3, 4)
	other := Peer{ID: "n4", Incarnation: 44}
	if _, err := b.e.ChangeMembership(b.now, Change{Voters: append(peersOf(1, 2, 3, 4), other)}); err == nil {
		t.Error("n4 is two directories")
	}
	if _, err := b.e.ChangeMembership(b.now, Change{Voters: peersOf(1, 2, 3), Learners: append(peersOf(4), other)}); err == nil {
		t.Error("n4 learns into two directories")
	}
	// To name one twice makes no majority of it: n2 alone answers, of n2 n3 n4.
	for _, i := range []int{3, 4} {
		b.e.Progress(b.now, Progress{Peer: member(i), Worker: b.worker(i), Unreachable: true, Acked: b.now})
	}
	b.flush()
	var risk *QuorumAtRiskError
	if _, err := b.e.ChangeMembership(b.now, Change{Voters: peersOf(2, 2, 2, 3)}); !errors.As(err, &risk) {
		t.Errorf("%v", err)
	}
	if b.flush(); b.e.Membership().Joint() {
		t.Error("it was appended")
	}
}

func TestEngineDoesNotChangeTheCallersLog(t *testing.T) {
	log := view(t, terms{1, 1, 2, 2, 3})
	restored := Restored{Vote: Vote{Term: 3}, Log: log, Committed: LogID{Term: 3, Index: 5}, Memberships: []MembershipAt{{Membership: voters(3)}}}
	b := restore(t, restored)
	b.e.SetSnapshot(ref(1, 1))
	b.e.Purged(LogID{Term: 1, Index: 1})
	if err := log.check(); err != nil {
		t.Fatal(err)
	}
	b.flush()
}

func TestANodeWhoseFirstConfigurationIsUndoneKnowsNobodyAgain(t *testing.T) {
	log := terms{1, 1}
	b := restore(t, Restored{Vote: Vote{Term: 1}, Log: view(t, log), Memberships: []MembershipAt{{ID: log.id(2), Membership: voters(3)}}})
	b.append(2, 2, log.id(1), 0, 2)
	if got := b.e.Membership(); len(got.Members) != 0 {
		t.Fatalf("it is still in %v", got)
	}
}

func TestASnapshotWithoutAConfigurationDoesNotPanic(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.offer(2, 2, ref(2, 9))
	b.e.Installed(b.now, LogID{Term: 2, Index: 9}, MembershipAt{}, SettingAt{})
	b.flush()
	b.tick(2 * timeout)
	b.wantRole(Follower)
}

func TestAnInstallationOverWritesThatAreNotDurableKeepsTheTail(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.slow = true
	b.append(2, 2, LogID{Term: 1, Index: 1}, 0, 2, 2, 2, 2) // 2 to 5, on their way to disk
	asked := b.to
	b.offer(2, 2, ref(2, 3))
	b.e.Installed(b.now, LogID{Term: 2, Index: 3}, MembershipAt{Membership: voters(3)}, SettingAt{})
	out := b.flush()
	if b.e.LastLogID().Index != 5 || b.e.DurableIndex() != 3 || b.e.Applicable() != 3 {
		t.Fatalf("log to %v, durable to %d", b.e.LastLogID(), b.e.DurableIndex())
	}
	for _, r := range out.AppendReplies {
		if r.To == asked {
			t.Fatalf("the tail is acknowledged before it is on disk: %+v", r.Response)
		}
	}
	b.e.Durable(b.now, 99)
	if b.flush(); b.e.DurableIndex() != 5 {
		t.Fatalf("durable to %d", b.e.DurableIndex())
	}
}
