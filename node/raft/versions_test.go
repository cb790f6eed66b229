package raft

import (
	"slices"
	"strings"
	"testing"
)

// speaking is n1 as a leader of m that speaks protocol 3 and commands 5, and has committed its first entry, which all others but the silent have.
func speaking(t *testing.T, m *Membership) *bench {
	t.Helper()
	b := newBench(t, m, terms{1})
	b.e.cfg.Versions = Versions{3, 5}
	b.lead(2, 3)
	return b
}

// speaks reports what members speak, and that they have the whole log.
func (b *bench) speaks(v Versions, from ...int) {
	b.Helper()
	for _, i := range from {
		b.e.Progress(b.now, Progress{Peer: member(i), Worker: b.worker(i), Matched: b.e.log.last, Acked: b.now, Versions: v})
	}
	b.flush()
}

func (b *bench) wantVersions(want Versions) {
	b.Helper()
	b.tick(heartbeat)
	if got := b.e.SettingAt().Setting.Versions; got != want {
		b.Fatalf("versions %v, want %v", got, want)
	}
}

func TestVersionsAreTheLeastThatAllMembersSpeak(t *testing.T) {
	b := speaking(t, voters(3))
	b.speaks(Versions{2, 7}, 2)
	b.wantVersions(Versions{}) // n3 has not told
	b.speaks(Versions{4, 1}, 3)
	b.wantVersions(Versions{2, 1})
	b.speaks(Versions{4, 1}, 2, 3)
	last := b.e.LastLogID()
	b.wantVersions(Versions{3, 1})
	if b.e.LastLogID().Index != last.Index+1 {
		t.Fatalf("the log grew from %v to %v", last, b.e.LastLogID())
	}
	b.speaks(Versions{4, 1}, 2, 3)
	last = b.e.LastLogID()
	b.wantVersions(Versions{3, 1})
	if b.e.LastLogID() != last {
		t.Fatal("what is in use is set again")
	}
}

func TestVersionsAreNeverLowered(t *testing.T) {
	b := speaking(t, voters(3))
	b.speaks(Versions{3, 5}, 2, 3)
	b.wantVersions(Versions{3, 5})
	b.speaks(Versions{1, 1}, 2, 3)
	b.wantVersions(Versions{3, 5})
	b.speaks(Versions{9, 1}, 2, 3)
	b.e.cfg.Versions = Versions{9, 5}
	b.wantVersions(Versions{9, 5}) // one rises, the other stays
}

func TestVersionsWaitForLearnersAndForWhoIsGone(t *testing.T) {
	m := voters(4)
	m.Members[3].Voter = false
	b := speaking(t, m)
	b.speaks(Versions{3, 5}, 2, 3)
	b.wantVersions(Versions{})
	b.speaks(Versions{1, 1}, 4)
	b.wantVersions(Versions{1, 1})
}

func TestVersionsWaitForBothSetsOfAJointConfiguration(t *testing.T) {
	b := speaking(t, voters(3))
	b.matched(2, 2) // the leader's own entry is committed
	joint := &Membership{Members: slices.Clone(voters(4).Members)}
	joint.Members[2].Voter, joint.Members[2].Outgoing = false, true // [n1 n2 n4]&[n1 n2 n3]
	joint.Members[0].Outgoing, joint.Members[1].Outgoing = true, true
	b.e.appendMembership(joint)
	b.flush()
	tell := func(i int, v Versions) {
		b.e.Progress(b.now, Progress{Peer: member(i), Worker: b.worker(i), Acked: b.now, Versions: v})
		b.flush()
	}
	tell(2, Versions{2, 2})
	tell(4, Versions{2, 2})
	b.wantVersions(Versions{}) // n3, which is on its way out, has not told
	tell(3, Versions{1, 1})
	b.wantVersions(Versions{1, 1})
}

func TestASuspectHoldsVersionsBackUntilItIsReplaced(t *testing.T) {
	b := speaking(t, voters(3))
	b.speaks(Versions{3, 5}, 2, 3)
	b.e.leading.targets["n3"].suspect = true
	b.wantVersions(Versions{})
}

func TestVersionsAreRaisedOneChangeAtATime(t *testing.T) {
	b := speaking(t, voters(3))
	b.speaks(Versions{1, 1}, 2, 3)
	b.wantVersions(Versions{1, 1}) // appended, and not committed
	for _, i := range []int{2, 3} {
		b.e.Progress(b.now, Progress{Peer: member(i), Worker: b.worker(i), Matched: LogID{Term: 1, Index: 1}, Acked: b.now, Versions: Versions{2, 2}})
	}
	b.flush()
	b.wantVersions(Versions{1, 1})
	b.speaks(Versions{2, 2}, 2)
	b.wantVersions(Versions{2, 2})
}

func TestVersionsAreNotRaisedDuringATransfer(t *testing.T) {
	b := speaking(t, voters(3))
	b.speaks(Versions{}, 2, 3)
	if err := b.e.Transfer(b.now, "n2"); err != nil {
		t.Fatal(err)
	}
	b.flush()
	b.speaks(Versions{1, 1}, 2, 3)
	b.wantVersions(Versions{})
}

func TestALeaderBelievesNothingThatWasToldToItsPredecessor(t *testing.T) {
	b := speaking(t, voters(3))
	b.speaks(Versions{}, 2, 3)
	b.e.becomeFollower(5, Peer{})
	b.flush()
	b.lead(2, 3)
	b.speaks(Versions{3, 5}, 2)
	b.wantVersions(Versions{}) // n3 has not answered this leadership
}

func TestChangeOfTheLeaseKeepsTheVersions(t *testing.T) {
	b := speaking(t, voters(3))
	b.speaks(Versions{3, 5}, 2, 3)
	b.wantVersions(Versions{3, 5})
	b.speaks(Versions{3, 5}, 2, 3)
	b.setLease(timeout)
	if got, want := b.e.SettingAt().Setting, (Setting{Lease: timeout, Versions: Versions{3, 5}}); got != want {
		t.Fatalf("%+v, want %+v", got, want)
	}
	b.speaks(Versions{9, 9}, 2, 3)
	b.e.cfg.Versions = Versions{9, 9}
	b.wantVersions(Versions{9, 9})
	if b.e.SettingAt().Setting.Lease != timeout {
		t.Fatal("the lease is gone")
	}
}

// What a follower does not understand does not get into its log, and it answers nothing, however the rest of the message looks.
func TestFollowerStopsBeforeWhatItDoesNotUnderstand(t *testing.T) {
	setting := func(v Versions) Entry { return Entry{Kind: EntrySetting, Setting: &Setting{Versions: v}} }
	for name, entry := range map[string]Entry{
		"an unknown format":    {Kind: EntryUnknown},
		"an unknown kind":      {Kind: newestKind + 1},
		"a newer protocol":     setting(Versions{2, 0}),
		"newer commands":       setting(Versions{0, 2}),
		"both, and it is late": setting(Versions{9, 9}),
	} {
		for _, place := range []int{0, 1, 2} {
			b := newBench(t, voters(3), terms{1, 1, 1})
			b.e.cfg.Versions = Versions{1, 1}
			entries := []Entry{{Kind: EntryCommand}, {Kind: EntryCommand}, {Kind: EntryCommand}}
			entries[place] = entry
			for i := range entries {
				entries[i].ID = LogID{Term: 2, Index: 2 + uint64(i)} // in the place of what an earlier leader left
			}
			out := b.request(&AppendRequest{Term: 2, Leader: member(2), Prev: LogID{Term: 1, Index: 1}, Entries: entries, Commit: 4})
			if !strings.Contains(out.Halt, entries[place].ID.String()) {
				t.Fatalf("%s at %d: halt %q", name, place, out.Halt)
			}
			if len(out.AppendReplies) > 0 || out.Write != nil && (out.Write.TruncateFrom > 0 || len(out.Write.Append) > 0) || b.e.LastLogID() != (LogID{Term: 1, Index: 3}) {
				t.Fatalf("%s at %d: it goes on: %+v", name, place, out)
			}
		}
	}
}

func TestFollowerTakesWhatItSpeaks(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.e.cfg.Versions = Versions{1, 2}
	out := b.request(&AppendRequest{Term: 1, Leader: member(2), Prev: LogID{Term: 1, Index: 1}, Entries: []Entry{
		{ID: LogID{Term: 1, Index: 2}, Kind: EntrySetting, Setting: &Setting{Versions: Versions{1, 1}}},
	}})
	if out.Halt != "" || b.answer().Status != AppendMatched || b.answer().Versions != (Versions{1, 2}) {
		t.Fatalf("%q, %+v", out.Halt, out.AppendReplies)
	}
	b.append(3, 2, LogID{Term: 1, Index: 1}, 1, 2) // another leader undoes it
	if got := b.e.SettingAt().Setting.Versions; got != (Versions{}) {
		t.Fatalf("%v after the entry was truncated", got)
	}
}

func TestReplicatorReportsWhatThePeerSpoke(t *testing.T) {
	f := started(t, terms{1})
	f.wait(heartbeat)
	old := f.next(true)
	f.wait(heartbeat)
	beat := f.next(true)
	matched := AppendResponse{Status: AppendMatched, Matched: f.log.id(1)}
	matched.Versions = Versions{4, 2}
	if got := f.answer(beat, matched, 8).Versions; got != matched.Versions {
		t.Fatalf("%v", got)
	}
	matched.Versions = Versions{1, 1}
	if got := f.answer(old, matched, 7).Versions; got != (Versions{4, 2}) {
		t.Fatalf("%v by an answer of the process before", got)
	}
}
