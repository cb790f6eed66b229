package raft

import "testing"

func TestWhoIsLeftOutOfAnUncommittedConfigurationStillStands(t *testing.T) {
	// n1 leads and leaves: its log ends with the configuration of n2 alone, not committed. n2 does not have that entry, and can not win
	// against the longer log. If n1 did not stand, nobody would ever lead (dissertation section 4.2.2).
	joint := voters(2)
	joint.Members[0].Voter, joint.Members[0].Outgoing, joint.Members[1].Outgoing = false, true, true
	restored := Restored{Vote: Vote{Term: 1}, Log: view(t, terms{1, 1, 1}), Committed: LogID{Term: 1, Index: 2},
		Memberships: []MembershipAt{{ID: LogID{Term: 1, Index: 2}, Membership: joint},
			{ID: LogID{Term: 1, Index: 3}, Membership: joint.Leave()}}}
	b := restore(t, restored)
	b.lead(2)
	b.matched(4, 2)
	b.wantCommit(4)

	restored.Committed = LogID{Term: 1, Index: 3} // committed: now it has nothing to say any more
	b = restore(t, restored)
	b.tick(10 * timeout)
	b.wantRole(Follower)
}

func TestLearnerNeverStandsButVotesIfAsked(t *testing.T) {
	m := voters(3)
	m.Members[0].Voter = false
	b := newBench(t, m, terms{1})
	for range 10 {
		b.tick(timeout * 2)
		b.wantRole(Follower)
	}
	// The asker may know a newer configuration, in which this node votes.
	if b.vote(2, 2, LogID{Term: 1, Index: 1}, false); !b.granted() {
		t.Error("refused")
	}
}

// n2 counts n1 among the voters of a configuration that n1 does not know, and needs its vote; but the log of n1, who only learns by what it
// knows, is newer. Nobody without that log can win that vote, so who has it must stand (dissertation section 4.2.2).
func TestALearnerStandsWhoseVoteIsNeededAndCannotBeGiven(t *testing.T) {
	m := voters(4)
	m.Members[0].Voter = false
	older := LogID{Term: 1, Index: 1}
	b := newBench(t, m, terms{1, 2})
	if b.vote(2, 3, older, true); b.granted() {
		t.Fatal("it votes for the older log")
	}
	b.lead(2, 3)
	b.matched(3, 2, 3)
	b.wantCommit(3)
	b.wantRole(Follower) // the leader that the configuration needed, but does not count, hands over
	if out := b.out; len(out.TimeoutNow) != 1 {
		t.Errorf("it hands over to %+v", out.TimeoutNow)
	}

	stays := func(b *bench) {
		t.Helper()
		for range 10 {
			b.tick(timeout * 2)
			b.wantRole(Follower)
		}
	}
	b = newBench(t, m, terms{1, 2})
	b.vote(2, 3, older, true)
	b.append(3, 3, LogID{Term: 2, Index: 2}, 0) // there is a leader after all
	stays(b)

	for _, lacks := range []LogID{older, {Term: 3, Index: 1}} { // the committed configuration
		b = restore(t, Restored{Vote: Vote{Term: 4}, Log: view(t, terms{1, 2, 4}), Committed: LogID{Term: 2, Index: 2},
			Memberships: []MembershipAt{{ID: LogID{Term: 2, Index: 2}, Membership: m}}})
		b.vote(2, 5, lacks, true)
		stays(b)
	}
}

func TestDuplicatedAndForeignVotesCountOnce(t *testing.T) {
	b := newBench(t, voters(5), terms{1})
	b.stand()
	b.grant(2, 2, 2)
	b.wantRole(PreCandidate)
	stranger := VoteResponse{From: Peer{ID: "n3", Incarnation: 99}, Term: 2, Granted: true, Pre: true} // has lost its disk
	b.e.VoteAnswer(b.now, &stranger)
	b.e.VoteAnswer(b.now, &VoteResponse{From: member(9), Term: 2, Granted: true, Pre: true})
	b.wantRole(PreCandidate)
	b.grant(3)
	b.wantRole(Candidate)
	b.e.VoteAnswer(b.now, &VoteResponse{From: member(2), Term: 2, Granted: true, Pre: true}) // of the pre-vote
	b.e.VoteAnswer(b.now, &VoteResponse{From: member(3), Term: 2, Granted: true, Pre: true})
	b.wantRole(Candidate)
	b.grant(2, 2)
	b.wantRole(Candidate)
	b.grant(4)
	b.wantRole(Leader)
}

func TestVotesOfAnEarlierElectionCountForNothing(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.stand()
	b.grant(2)
	b.wantRole(Candidate) // in term 2
	b.stand2(t)           // pre-vote for term 3, then term 3
	b.grant(3)
	b.e.VoteAnswer(b.now, &VoteResponse{From: member(2), Term: 2, Granted: true})
	b.wantRole(Candidate)
	if b.e.Vote().Term != 3 {
		t.Fatalf("%v", b.e.Vote())
	}
}

// stand2 waits until a campaign that came to nothing is followed by another.
func (b *bench) stand2(t *testing.T) {
	t.Helper()
	for range 100 {
		if b.tick(b.e.Deadline().Sub(b.now)); b.e.Role() == PreCandidate {
			return
		}
	}
	t.Fatal("it does not try again")
}

func TestCampaignEndsWhenItCannotBeWon(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.stand()
	refuse := func(i int) {
		b.e.VoteAnswer(b.now, &VoteResponse{From: member(i), Term: 1, Pre: true})
		b.flush()
	}
	refuse(2)
	b.wantRole(PreCandidate)
	refuse(3)
	b.wantRole(Follower)
	if b.e.Vote().Term != 1 {
		t.Errorf("a pre-vote raised the term: %v", b.e.Vote())
	}
}

func TestSingleVoterLeadsAtOnce(t *testing.T) {
	b := newBench(t, voters(1), nil)
	b.tick(0)
	b.wantRole(Leader)
	b.wantCommit(1)
	b.propose(3)
	b.wantCommit(4)
	if b.e.Read(b.now, 1); len(b.flush().Reads) != 1 {
		t.Error("the read waits")
	}
}

func TestSingleVoterCommitsOnlyWhatIsDurable(t *testing.T) {
	b := newBench(t, voters(1), nil)
	b.tick(0)
	b.slow = true
	b.propose(1)
	b.wantCommit(1)
	b.e.Durable(b.now, b.out.Write.Seq)
	b.flush()
	b.wantCommit(2)
}

func TestLoneVoterAmongLearnersLeadsAtOnce(t *testing.T) {
	m := voters(3)
	m.Members[1].Voter, m.Members[2].Voter = false, false
	b := newBench(t, m, nil)
	b.tick(0)
	b.wantRole(Leader)
	b.wantCommit(1)
	if len(b.e.Replication()) != 2 {
		t.Errorf("targets %+v", b.e.Replication())
	}
}

func TestJointElectionNeedsBothMajorities(t *testing.T) {
	m := voters(5) // n1 n2 n3 coming in, n1 n4 n5 going out
	for i := range m.Members {
		m.Members[i].Voter, m.Members[i].Outgoing = i < 3, i == 0 || i > 2
	}
	b := newBench(t, m, terms{1})
	b.stand()
	b.grant(2, 3)
	b.wantRole(PreCandidate)
	b.grant(4)
	b.wantRole(Candidate)
	b.grant(4, 5)
	b.wantRole(Candidate)
	b.grant(3)
	b.wantRole(Leader)

	// So do commits ...
	b.matched(2, 2, 3)
	b.wantCommit(0)
	b.matched(2, 5)
	b.wantCommit(2)
	// Committed, it is ended at once, by an entry that needs the incoming majority only.
	if m := b.e.Membership(); m.Joint() || b.e.LastLogID().Index != 3 || len(m.Members) != 3 {
		t.Fatalf("membership %v at %v", m, b.e.LastLogID())
	}
	b.matched(3, 2)
	b.wantCommit(3)
}

func TestJointReadsAndLeadershipNeedBothMajorities(t *testing.T) {
	m := voters(5)
	simple := &Membership{Members: []Member{m.Members[0], m.Members[3], m.Members[4]}} // n1 n4 n5
	b := newBench(t, simple, terms{1})
	b.stand()
	b.grant(4)
	b.grant(4)
	b.matched(2, 4, 5)
	b.wantCommit(2)
	for i := range m.Members { // n1 n2 n3 coming in
		m.Members[i].Voter, m.Members[i].Outgoing = i < 3, i == 0 || i > 2
	}
	b.e.Propose(b.now, []Entry{{Kind: EntryMembership, Membership: m}})
	b.flush()
	b.e.Read(b.now, 1)
	b.flush()
	if b.matched(2, 4, 5); len(b.out.Reads) != 0 {
		t.Error("a read needs the incoming majority too")
	}
	if b.matched(2, 2); len(b.out.Reads) != 1 {
		t.Error("the read still waits")
	}
	for range 12 {
		b.tick(timeout / 10)
		if b.e.Role() == Leader {
			b.matched(2, 2, 3)
		}
	}
	b.wantRole(Follower)
}

func TestLearnersDoNotCount(t *testing.T) {
	m := voters(4)
	m.Members[3].Voter = false
	b := newBench(t, m, terms{1})
	b.stand()
	b.grant(4)
	b.wantRole(PreCandidate)
	b.grant(2)
	b.grant(2)
	b.slow = true
	b.propose(1)
	b.matched(3, 4)
	b.wantCommit(0)
	b.matched(3, 2)
	b.wantCommit(2)
}
