package raft

import (
	"errors"
	"slices"
	"testing"
)

// answered has targets report that they matched and have answered now.
func (b *bench) answered(index uint64, from ...int) {
	b.Helper()
	for _, i := range from {
		b.e.Progress(b.now, Progress{Peer: member(i), Worker: b.worker(i), Matched: LogID{Term: b.e.Vote().Term, Index: index}, Acked: b.now})
	}
	b.flush()
}

func peersOf(ids ...int) []Peer {
	peers := make([]Peer, len(ids))
	for i, id := range ids {
		peers[i] = member(id)
	}
	return peers
}

// serving returns n1 as the leader of n voters, its blank entry committed.
func serving(t *testing.T, m *Membership) *bench {
	t.Helper()
	b := newBench(t, m, nil)
	b.lead(2, 3)
	b.answered(1, 2, 3)
	b.wantCommit(1)
	return b
}

func (b *bench) change(want Change) LogID {
	b.Helper()
	id, err := b.e.ChangeMembership(b.now, want)
	if err != nil {
		b.Fatal(err)
	}
	b.flush()
	return id
}

func TestChangeIsJointUntilBothMajoritiesHaveItThenEnds(t *testing.T) {
	m := voters(4)
	m.Members[3].Voter = false // n4 learns
	b := serving(t, m)
	b.answered(1, 4)
	id := b.change(Change{Voters: peersOf(1, 2, 4)})
	if got := b.e.Membership(); !got.Joint() || id.Index != 2 {
		t.Fatalf("entry %v, %v", id, got)
	}
	if _, err := b.e.ChangeMembership(b.now, Change{Voters: peersOf(1)}); !errors.Is(err, ErrChangePending) {
		t.Fatalf("a second change at once: %v", err)
	}
	b.answered(2, 3) // old: n1 n3; new: n1 alone
	b.wantCommit(1)
	b.answered(2, 4)
	b.wantCommit(2)
	if got := b.e.Membership(); got.Joint() || got.Contains(member(3)) || b.e.LastLogID().Index != 3 {
		t.Fatalf("%v at %v", got, b.e.LastLogID())
	}
	if len(b.e.Replication()) != 2 {
		t.Fatalf("it replicates to %v", b.e.Replication())
	}
}

func TestANewLeaderFinishesAJointChange(t *testing.T) {
	m := voters(3)
	joint := &Membership{Members: slices.Clone(m.Members)}
	for i := range joint.Members {
		joint.Members[i].Outgoing = true
	}
	joint.Members[2].Voter = false // n3 leaves
	log := terms{1, 1}
	b := restore(t, Restored{
		Vote: Vote{Term: 1}, Log: view(t, log),
		Memberships: []MembershipAt{{Membership: m}, {ID: log.id(2), Membership: joint}},
	})
	b.lead(2, 3)
	if !b.e.Membership().Joint() {
		t.Fatal("the joint configuration is forgotten")
	}
	b.answered(3, 2)
	if got := b.e.Membership(); got.Joint() || got.Contains(member(3)) {
		t.Fatalf("commit %d, but the configuration is still %v", b.e.Commit(), got)
	}
}

func TestALeaderThatIsRemovedLeadsUntilThatIsCommittedAndHandsOver(t *testing.T) {
	b := serving(t, voters(3))
	b.change(Change{Voters: peersOf(2, 3)})
	b.answered(2, 2, 3)
	b.wantRole(Leader) // the final configuration is appended, not committed
	if b.e.Membership().Contains(member(1)) || b.e.LastLogID().Index != 3 {
		t.Fatalf("%v at %v", b.e.Membership(), b.e.LastLogID())
	}
	var told []SendTimeoutNow
	for _, i := range []int{2, 3} { // it does not count itself
		b.wantRole(Leader)
		b.e.Progress(b.now, Progress{Peer: member(i), Worker: b.worker(i), Matched: b.e.LastLogID(), Acked: b.now})
		told = append(told, b.flush().TimeoutNow...)
	}
	b.wantRole(Follower)
	b.wantCommit(3)
	if len(told) != 1 || told[0].To == member(1) {
		t.Fatalf("told to stand: %+v", told)
	}
	for range 5 {
		b.tick(timeout)
	}
	b.wantRole(Follower)
}

// The round of a read was to be answered by who is removed meanwhile. Who is left is a quorum, and nobody else will ever answer.
func TestReadsGoOnWhenNobodyElseIsLeft(t *testing.T) {
	b := newBench(t, voters(2), nil)
	b.lead(2)
	b.answered(1, 2)
	b.slow = true
	b.change(Change{Voters: peersOf(1)})
	joint := b.out.Write.Seq
	b.answered(2, 2)
	b.e.Read(b.now, 1)
	b.wantCommit(1)
	b.slow = false
	b.e.Durable(b.now, joint) // commits the joint configuration, and appends the final one
	reads := b.flush().Reads
	if got := b.e.Membership(); got.Joint() || got.Contains(member(2)) || b.e.Commit() != 3 {
		t.Fatalf("%v, commit %d", got, b.e.Commit())
	}
	if len(reads) != 1 || reads[0] != (ReadReady{ID: 1, Index: 1}) {
		t.Errorf("the read that was asked before: %+v", reads)
	}
	b.e.Read(b.now, 2)
	if reads := b.flush().Reads; len(reads) != 1 || reads[0] != (ReadReady{ID: 2, Index: 3}) {
		t.Errorf("a read after that: %+v", reads)
	}
}

func TestChangesThatAreRefused(t *testing.T) {
	fresh := Peer{ID: "n2", Incarnation: 77}
	for name, test := range map[string]struct {
		change  Change
		prepare func(b *bench)
		is      func(error) bool
	}{
		"nobody votes":  {Change{}, nil, func(err error) bool { return err != nil }},
		"another seen":  {Change{Voters: peersOf(1, 2), If: &LogID{Term: 1, Index: 9}}, nil, as[*ChangedError]},
		"never learned": {Change{Voters: peersOf(1, 2, 3, 4)}, nil, as[*NotCaughtUpError]},
		"a lost disk":   {Change{Voters: []Peer{member(1), fresh, member(3)}}, nil, as[*ReplacedError]},
		"quorum is silent": {Change{Voters: peersOf(1, 2)}, func(b *bench) {
			b.e.Progress(b.now, Progress{Peer: member(2), Worker: b.worker(2), Unreachable: true, Acked: b.now})
			b.flush()
		}, as[*QuorumAtRiskError]},
		"transferring": {Change{Voters: peersOf(1, 2)}, func(b *bench) {
			if err := b.e.Transfer(b.now, "n2"); err != nil {
				b.Fatal(err)
			}
			b.flush()
		}, func(err error) bool { return errors.Is(err, ErrTransferring) }},
	} {
		t.Run(name, func(t *testing.T) {
			b := serving(t, voters(3))
			if test.prepare != nil {
				test.prepare(b)
			}
			last := b.e.LastLogID()
			if _, err := b.e.ChangeMembership(b.now, test.change); !test.is(err) {
				t.Fatalf("%v", err)
			}
			if b.flush(); b.e.LastLogID() != last {
				t.Fatal("it was appended all the same")
			}
		})
	}
	b := newBench(t, voters(3), nil)
	if _, err := b.e.ChangeMembership(b.now, Change{Voters: peersOf(1)}); !errors.Is(err, ErrNotLeading) {
		t.Error(err)
	}
	b.lead(2, 3)
	if _, err := b.e.ChangeMembership(b.now, Change{Voters: peersOf(1)}); !errors.Is(err, ErrNotReady) {
		t.Error(err)
	}
	b = serving(t, voters(3))
	if id := b.change(Change{Voters: peersOf(1, 2, 3)}); id != (LogID{}) || b.e.LastLogID().Index != 1 {
		t.Errorf("a change to what is: %v", id)
	}
}

func as[E error](err error) bool {
	var target E
	return errors.As(err, &target)
}

func TestARemovedNodeIsToldAndStandsNoMore(t *testing.T) {
	// A voter knows a committed configuration without n9 ...
	m := voters(3)
	log := terms{1, 1}
	b := restore(t, Restored{
		Vote: Vote{Term: 1}, Log: view(t, log), Committed: log.id(2), Memberships: []MembershipAt{{ID: log.id(2), Membership: m}},
	})
	b.e.VoteRequested(b.now, &VoteRequest{Term: 2, Candidate: member(9), Last: log.id(1), Pre: true}, 5)
	if out := b.flush(); len(out.VoteReplies) != 1 || out.VoteReplies[0].Response.Removed != 2 {
		t.Fatalf("%+v", out.VoteReplies)
	}
	// ... and a node that is told so stops, until a leader calls it.
	b = newBench(t, voters(3), terms{1})
	b.stand()
	b.e.VoteAnswer(b.now, &VoteResponse{From: member(2), Term: 1, Pre: true, Removed: 9})
	b.flush()
	if !b.e.Removed() {
		t.Fatal("it does not believe it")
	}
	for range 5 {
		b.tick(2 * timeout)
		b.wantRole(Follower)
	}
	b.append(2, 2, LogID{Term: 1, Index: 1}, 0)
	if b.e.Removed() {
		t.Fatal("a leader counts it among its members again")
	}
}

func TestARemovedNodeThatHasTheConfigurationIsToldThatItIsCommitted(t *testing.T) {
	// n1 has the configuration without it in its log, and does not know that it is committed: it must stand, in case that only it has the entry.
	log := terms{1, 1}
	without := voters(3)
	without.Members = without.Members[1:]
	for name, test := range map[string]struct {
		newest  *Membership
		removed uint64
		want    bool
	}{
		"it is":                           {newest: without, removed: 2, want: true},
		"an older one is":                 {newest: without, removed: 1},
		"its own one, with it, is: a lie": {newest: voters(4), removed: 2},
		"a later one is":                  {newest: voters(4), removed: 3, want: true},
	} {
		b := restore(t, Restored{
			Vote: Vote{Term: 1}, Log: view(t, log), Memberships: []MembershipAt{{Membership: voters(3)}, {ID: log.id(2), Membership: test.newest}},
		})
		b.stand()
		b.wantRole(PreCandidate)
		b.e.VoteAnswer(b.now, &VoteResponse{From: member(2), Term: 1, Pre: true, Removed: test.removed})
		if b.flush(); b.e.Removed() != test.want {
			t.Errorf("%s: removed %t", name, b.e.Removed())
		}
	}
}

func TestTransferToWhoCannotLead(t *testing.T) {
	m := voters(4)
	m.Members[3].Voter = false
	for to, prepare := range map[NodeID]func(b *bench){
		"n9": func(*bench) {},
		"n4": func(b *bench) { b.answered(1, 4) },
		"n3": func(b *bench) {
			b.e.Progress(b.now, Progress{Peer: member(3), Worker: b.worker(3), Unreachable: true, Acked: b.now})
			b.flush()
		},
	} {
		b := serving(t, m)
		prepare(b)
		if err := b.e.Transfer(b.now, to); !as[*TransferError](err) || b.e.Transferring() {
			t.Errorf("to %s: %v", to, err)
		}
	}
	b := serving(t, m)
	if err := b.e.Transfer(b.now, "n1"); err != nil || b.e.Transferring() {
		t.Errorf("to itself: %v", err)
	}
}

func TestTransferCatchesUpTellsAndGivesUp(t *testing.T) {
	b := serving(t, voters(3))
	b.propose(1)
	if err := b.e.Transfer(b.now, "n3"); err != nil {
		t.Fatal(err)
	}
	if out := b.flush(); len(out.TimeoutNow) != 0 {
		t.Fatal("n3 lacks an entry and is told to stand")
	}
	if _, ok := b.e.Propose(b.now, []Entry{{Kind: EntryCommand}}); ok {
		t.Fatal("a proposal was taken")
	}
	b.e.Progress(b.now, Progress{Peer: member(3), Worker: b.worker(3), Matched: b.e.LastLogID(), Acked: b.now})
	out := b.flush()
	if len(out.TimeoutNow) != 1 || out.TimeoutNow[0].To != member(3) || out.TimeoutNow[0].Request.Term != b.e.Vote().Term {
		t.Fatalf("%+v", out.TimeoutNow)
	}
	for range 12 { // it does not stand: go on leading
		b.tick(timeout / 10)
		b.answered(2, 2, 3)
	}
	b.wantRole(Leader)
	if b.e.Transferring() {
		t.Fatal("the transfer never ends")
	}
	b.propose(1)
}

// A target that is found to be gone, before or after it was told to stand, ends the transfer at once: another can be tried.
func TestTransferToWhoGoesAwayEndsAtOnce(t *testing.T) {
	for name, matched := range map[string]bool{"before it was told": false, "after it was told": true} {
		b := serving(t, voters(3))
		b.propose(1)
		if err := b.e.Transfer(b.now, "n3"); err != nil {
			t.Fatal(err)
		}
		if matched {
			b.e.Progress(b.now, Progress{Peer: member(3), Worker: b.worker(3), Matched: b.e.LastLogID(), Acked: b.now})
		}
		if out := b.flush(); len(out.TimeoutNow) == 1 != matched || !b.e.Transferring() {
			t.Fatalf("%s: %+v", name, out.TimeoutNow)
		}
		b.e.Progress(b.now, Progress{Peer: member(3), Worker: b.worker(3), Unreachable: true, Acked: b.now})
		b.flush()
		if b.e.Transferring() {
			t.Fatalf("%s: it is waited for", name)
		}
		if err := b.e.Transfer(b.now, ""); err != nil || !b.e.Transferring() {
			t.Fatalf("%s: n2 is not tried: %v", name, err)
		}
		b.e.Progress(b.now, Progress{Peer: member(2), Worker: b.worker(2), Unreachable: true, Acked: b.now})
		b.flush()
		var failed *TransferError
		if err := b.e.Transfer(b.now, ""); !errors.As(err, &failed) || !failed.Nobody {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

func TestOnlyTheLeaderOfTheTermCanTellANodeToStand(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.append(2, 2, LogID{Term: 1, Index: 1}, 0)
	for name, req := range map[string]TimeoutNowRequest{
		"an old leader":       {Term: 1, Leader: member(2)},
		"a leader of no term": {Term: 0, Leader: member(2)},
		"somebody else":       {Term: 2, Leader: member(3)},
		"another incarnation": {Term: 2, Leader: Peer{ID: "n2", Incarnation: 9}},
		"a term yet to come":  {Term: 3, Leader: member(2)},
	} {
		b.e.TimeoutNow(b.now, &req, 7)
		if out := b.flush(); len(out.TimeoutNowReplies) != 1 || out.TimeoutNowReplies[0].Response.Standing || b.e.Role() != Follower {
			t.Errorf("%s was obeyed: %+v", name, out.TimeoutNowReplies)
		}
	}
	b.e.TimeoutNow(b.now, &TimeoutNowRequest{Term: 2, Leader: member(2)}, 7)
	out := b.flush()
	if !out.TimeoutNowReplies[0].Response.Standing || b.e.Role() != Candidate || b.e.Vote().Term != 3 {
		t.Fatalf("%+v, %v in %v", out.TimeoutNowReplies, b.e.Role(), b.e.Vote())
	}
	for _, v := range out.Votes {
		if !v.Request.Transfer || v.Request.Pre {
			t.Errorf("it asks %+v", v.Request)
		}
	}
	// A voter in touch with the leader gives its vote to the one that the leader sent.
	b = newBench(t, voters(3), terms{1})
	b.append(2, 2, LogID{Term: 1, Index: 1}, 0)
	b.e.VoteRequested(b.now, &VoteRequest{Term: 3, Candidate: member(3), Last: LogID{Term: 1, Index: 1}, Transfer: true}, 8)
	if out := b.flush(); len(out.VoteReplies) != 1 || !out.VoteReplies[0].Response.Granted {
		t.Fatalf("%+v", out.VoteReplies)
	}
}
