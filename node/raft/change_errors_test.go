package raft

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestChangeErrorsSayWhatToDo(t *testing.T) {
	seen := LogID{Term: 1, Index: 9}
	m := voters(4)
	m.Members[3].Voter = false
	for name, test := range map[string]struct {
		prepare func(b *bench)
		change  Change
		is      func(error) bool
		says    string
	}{
		"a far learner": {func(b *bench) {
			b.answered(1, 4)
			b.propose(maxPromotionLag + 1)
			b.answered(maxPromotionLag+2, 2, 3)
		}, Change{Voters: peersOf(1, 2, 3, 4)}, as[*NotCaughtUpError], "1001 entries behind"},
		"a silent learner": {nil, Change{Voters: peersOf(1, 2, 3, 4)}, as[*NotCaughtUpError], "does not answer"},
		"a suspect": {func(b *bench) {
			b.answered(1, 4)
			b.e.Progress(b.now, Progress{Peer: member(4), Worker: b.worker(4), Suspect: "it lies"})
			b.flush()
		}, Change{Voters: peersOf(1, 2, 3, 4)}, as[*NotCaughtUpError], "n4"},
		"no quorum": {func(b *bench) {
			b.tick(timeout / 2)
			b.answered(1, 2)
			b.tick(timeout*2/3 - 1)
			b.answered(1, 2)
		}, Change{Voters: peersOf(1, 3)}, as[*QuorumAtRiskError], "[n3] do not answer"},
		"seen another":         {nil, Change{Voters: peersOf(1), If: &seen}, as[*ChangedError], "entry 0.0"},
		"another directory":    {nil, Change{Voters: []Peer{{ID: "n1", Incarnation: 9}}, Force: true}, as[*ReplacedError], "remove it first"},
		"it learns from there": {nil, Change{Voters: peersOf(1, 2), Learners: []Peer{{ID: "n3", Incarnation: 9}}}, as[*ReplacedError], "n3"},
		"only learners":        {nil, Change{Learners: peersOf(1, 2, 3), Force: true}, func(err error) bool { return err != nil }, "no voter"},
		"no name":              {nil, Change{Voters: []Peer{{}}, Force: true}, func(err error) bool { return err != nil }, "no id"},
		"a plain change that is not committed": {func(b *bench) { b.change(Change{Voters: peersOf(1, 2, 3)}) },
			Change{Voters: peersOf(1, 2, 3), Learners: peersOf(5), Force: true}, func(err error) bool { return errors.Is(err, ErrChangePending) }, "under way"},
	} {
		t.Run(name, func(t *testing.T) {
			b := serving(t, m)
			if test.prepare != nil {
				test.prepare(b)
			}
			last := b.e.LastLogID()
			_, err := b.e.ChangeMembership(b.now, test.change)
			if !test.is(err) || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("%v", err)
			}
			if b.flush(); b.e.LastLogID() != last {
				t.Error("it was appended all the same")
			}
		})
	}
}

func TestForcedChangeGoesAheadWithoutTheNewVoters(t *testing.T) {
	b := serving(t, voters(3))
	b.change(Change{Voters: peersOf(1, 8, 9), Force: true})
	if !b.e.Membership().Joint() || len(b.e.Replication()) != 4 {
		t.Fatalf("%v", b.e.Membership())
	}
}

func TestLearnersAreAddedAndReplacedWithoutAJointConfiguration(t *testing.T) {
	b := serving(t, voters(3))
	b.change(Change{Voters: peersOf(1, 2, 3), Learners: peersOf(4)})
	b.answered(2, 2)
	b.wantCommit(2)
	old := b.worker(4)
	fresh := Peer{ID: "n4", Incarnation: 44} // has lost its disk
	b.change(Change{Voters: peersOf(1, 2, 3), Learners: []Peer{fresh}})
	for _, target := range b.e.Replication() {
		if target.Peer.ID == "n4" && (target.Peer != fresh || target.Worker == old) {
			t.Errorf("%+v", target)
		}
	}
	if b.e.Membership().Joint() {
		t.Error("joint")
	}
}

func TestTransferErrors(t *testing.T) {
	m := voters(4)
	m.Members[3].Voter = false
	b := newBench(t, m, nil)
	if err := b.e.Transfer(b.now, "n2"); !errors.Is(err, ErrNotLeading) {
		t.Error(err)
	}
	for to, says := range map[NodeID]string{
		"n4": "does not vote", "n9": "not a member", "n3": "does not answer", "": "no other voter answers",
	} {
		b = serving(t, m)
		for _, i := range []int{2, 3} {
			b.e.Progress(b.now, Progress{Peer: member(i), Worker: b.worker(i), Suspect: "it lies"})
		}
		b.flush()
		if err := b.e.Transfer(b.now, to); !as[*TransferError](err) || !strings.Contains(err.Error(), says) || b.e.Transferring() {
			t.Errorf("to %q: %v", to, err)
		}
	}
	b = serving(t, m)
	if err := b.e.Transfer(b.now, ""); err != nil {
		t.Fatal(err)
	}
	if err := b.e.Transfer(b.now, "n3"); !errors.Is(err, ErrTransferring) {
		t.Error(err)
	}
	if err := b.e.Transfer(b.now, "n1"); err != nil {
		t.Errorf("to itself: %v", err)
	}
	b.flush()
}

func TestAHigherTermEndsATransfer(t *testing.T) {
	b := serving(t, voters(3))
	if err := b.e.Transfer(b.now, "n2"); err != nil {
		t.Fatal(err)
	}
	b.e.Progress(b.now, Progress{Peer: member(3), Worker: b.worker(3), SeenTerm: 9})
	b.flush()
	b.wantRole(Follower)
	if b.e.Transferring() {
		t.Error("it still hands over")
	}
}

// Any set to any set: the joint configuration needs a majority of the old voters and of the new ones, and ends in what was wanted.
func TestTowardsLeadsToWhatIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) *Membership {
			m := &Membership{}
			for i := 1; i <= 6; i++ {
				if in := rapid.IntRange(0, 2).Draw(t, name); in > 0 {
					m.Members = append(m.Members, Member{Peer: member(i), Voter: in == 1})
				}
			}
			return m
		}
		from, wanted := draw("from"), draw("wanted")
		next, joint := from.Towards(wanted.Voters(), wanted.Learners())
		same := func(a, b []Peer) bool { return NewMembership(a...).Equal(NewMembership(b...)) }
		if joint == same(from.Voters(), wanted.Voters()) {
			t.Fatalf("from %v to %v: joint %t", from, wanted, joint)
		}
		if end := next.Leave(); !end.Equal(wanted) {
			t.Fatalf("from %v to %v by %v ends in %v", from, wanted, next, end)
		}
		outgoing := next.peers(func(m Member) bool { return m.Outgoing })
		if joint && (!same(outgoing, from.Voters()) || !same(next.Voters(), wanted.Voters())) {
			t.Fatalf("from %v to %v by %v", from, wanted, next)
		}
		if !joint && (next.Joint() && len(from.Voters()) > 0 || !next.Equal(wanted)) {
			t.Fatalf("from %v to %v by %v", from, wanted, next)
		}
	})
}
