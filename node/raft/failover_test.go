package raft

import (
	"testing"
	"time"
)

// Instant failover: "no responders" changes when an election starts, never who may win it.

// following3 is n1 of three, in term 1, following n2.
func following3(t *testing.T) *bench {
	b := newBench(t, voters(3), terms{1, 1})
	b.request(&AppendRequest{Term: 1, Leader: member(2), Prev: LogID{Term: 1, Index: 2}, Successors: []NodeID{"n1", "n3"}})
	return b
}

// missed lets one heartbeat be missed, and wants a probe of n2.
func (b *bench) missed() {
	b.Helper()
	b.tick(heartbeat * 3 / 2)
	if b.out.Probe == nil || *b.out.Probe != member(2) {
		b.Fatalf("probe %v", b.out.Probe)
	}
}

func (b *bench) probed(gone bool) Output {
	b.Helper()
	b.e.ProbeAnswer(b.now, member(2), gone, time.Millisecond)
	b.e.Tick(b.now)
	return b.flush()
}

func TestMissedHeartbeatProbesAndStandsAtOnce(t *testing.T) {
	b := following3(t)
	b.missed()
	if out := b.probed(true); b.e.Role() != PreCandidate || len(out.Votes) != 2 || !out.Votes[0].Request.Pre {
		t.Fatalf("%v, asks %+v", b.e.Role(), out.Votes)
	}
}

func TestLeaderThatIsThereIsGivenItsTime(t *testing.T) {
	b := following3(t)
	b.missed()
	if b.probed(false); b.e.Role() != Follower {
		t.Fatal("it stands although the leader's process is there")
	}
	if b.tick(heartbeat); b.out.Probe == nil {
		t.Fatal("it does not ask again")
	}
}

func TestHeartbeatAfterTheProbeOutweighsIt(t *testing.T) {
	b := following3(t)
	b.missed()
	b.now = b.now.Add(time.Millisecond)
	b.append(2, 1, LogID{Term: 1, Index: 2}, 0)
	b.probed(true)
	b.wantRole(Follower)
}

func TestHeartbeatsThatOvertakeEachOther(t *testing.T) {
	b := following3(t)
	late := b.now
	b.now = b.now.Add(timeout / 2)
	b.append(2, 1, LogID{Term: 1, Index: 2}, 0)
	b.to++
	b.e.Append(late, &AppendRequest{Term: 1, Leader: member(2), Prev: LogID{Term: 1, Index: 2}}, b.to)
	b.flush()
	b.now = b.now.Add(timeout * 3 / 4)
	if b.vote(3, 10, LogID{Term: 9, Index: 9}, true); len(b.out.VoteReplies) != 0 {
		t.Error("an older message made it forget that it heard a newer one")
	}
}

func TestOtherSuccessorsGiveTheFirstItsTime(t *testing.T) {
	b := newBench(t, voters(3), terms{1, 1})
	b.request(&AppendRequest{Term: 1, Leader: member(2), Prev: LogID{Term: 1, Index: 2}, Successors: []NodeID{"n3", "n1"}})
	b.missed()
	b.probed(true)
	b.wantRole(Follower)
	wait := b.e.Deadline().Sub(b.now)
	if wait <= 0 || wait > heartbeat {
		t.Fatalf("it waits %v", wait)
	}
	b.tick(wait)
	b.wantRole(PreCandidate)
}

func TestLeaderGoneNeverMakesItWaitLonger(t *testing.T) {
	b := newBench(t, voters(9), terms{1, 1})
	b.request(&AppendRequest{Term: 1, Leader: member(2), Prev: LogID{Term: 1, Index: 2},
		Successors: []NodeID{"n3", "n4", "n5", "n6", "n7", "n8", "n9", "n1"}})
	b.missed()
	before := b.e.following.deadline
	b.e.ProbeAnswer(b.now, member(2), true, time.Second) // a very slow network
	b.flush()
	if after := b.e.following.deadline; after.After(before) {
		t.Errorf("without the probe it would stand after %v, now after %v", before.Sub(b.now), after.Sub(b.now))
	}
}

func TestInstantElectionLeavesASlowDiskItsTime(t *testing.T) {
	// Writes take longer than the scale of an instant election. Each try must leave more time, or none ever ends.
	b := following3(t)
	b.missed()
	b.slow = true
	b.probed(true)
	const diskTime = 60 * time.Millisecond
	for range 20 {
		if b.e.Role() == PreCandidate {
			b.grant(3)
		}
		if b.e.Role() != Candidate {
			b.tick(max(time.Microsecond, b.e.Deadline().Sub(b.now)))
			continue
		}
		seq, due := b.e.seq, b.now.Add(diskTime)
		for b.e.Role() == Candidate && b.now.Before(due) {
			b.tick(min(due.Sub(b.now), max(time.Microsecond, b.e.Deadline().Sub(b.now))))
		}
		if b.e.Role() == Candidate {
			b.e.Durable(b.now, seq)
			b.flush()
			b.grant(3)
			b.wantRole(Leader)
			return
		}
	}
	t.Error("it starts over and over, and never waits for its own vote to be durable")
}

func TestElectionsWithoutSuccessSlowDown(t *testing.T) {
	// "No responders" may come from a NATS server that is cut off. It must not ask for ever on the scale of milliseconds.
	b := following3(t)
	b.missed()
	b.probed(true)
	campaigns := 0
	for end := b.now.Add(20 * timeout); b.now.Before(end); {
		if b.tick(max(time.Microsecond, b.e.Deadline().Sub(b.now))); len(b.out.Votes) > 0 {
			campaigns++
		}
	}
	if campaigns > 30 {
		t.Errorf("%d campaigns in 20 election timeouts", campaigns)
	}
}

func TestVoterInTouchAsksForItself(t *testing.T) {
	last := LogID{Term: 1, Index: 2}
	for name, test := range map[string]struct {
		gone bool
		pre  bool
	}{
		"pre-vote, leader gone": {gone: true, pre: true}, "vote, leader gone": {gone: true},
		"pre-vote, leader there": {pre: true}, "vote, leader there": {},
	} {
		t.Run(name, func(t *testing.T) {
			b := following3(t)
			out := b.vote(3, 2, last, test.pre)
			if len(out.VoteReplies) != 0 || out.Probe == nil || *out.Probe != member(2) {
				t.Fatalf("answers %+v, probe %v", out.VoteReplies, out.Probe)
			}
			b.e.ProbeAnswer(b.now, member(2), test.gone, time.Millisecond)
			b.flush()
			if b.granted() != test.gone {
				t.Errorf("granted %v", b.granted())
			}
			if !test.gone && b.e.Vote().Term != 1 {
				t.Error("its term was raised")
			}
		})
	}
}

func TestHeldVotesAreRefusedWhenTheLeaderIsHeard(t *testing.T) {
	b := following3(t)
	b.vote(3, 2, LogID{Term: 1, Index: 2}, true)
	b.append(2, 1, LogID{Term: 1, Index: 2}, 0)
	if b.granted() {
		t.Error("granted")
	}
}

func TestHeldVotesAreBoundedAndEachIsAnswered(t *testing.T) {
	b := newBench(t, voters(3), terms{1, 1})
	b.append(2, 1, LogID{Term: 1, Index: 2}, 0)
	answers := 0
	for i := range 40 {
		out := b.vote(3+i, 2, LogID{Term: 1, Index: 2}, true)
		answers += len(out.VoteReplies)
		out = b.vote(3+i, 2, LogID{Term: 1, Index: 2}, true) // it asks again: the first is refused
		answers += len(out.VoteReplies)
	}
	if held := len(b.e.following.held); held > 16 {
		t.Errorf("%d votes are held", held)
	}
	b.e.ProbeAnswer(b.now, member(2), false, 0)
	answers += len(b.flush().VoteReplies)
	if answers != 80 {
		t.Errorf("%d answers to 80 requests", answers)
	}
}

func TestLearnersDoNotProbe(t *testing.T) {
	m := voters(4)
	m.Members[0].Voter = false
	b := newBench(t, m, terms{1, 1})
	b.append(2, 1, LogID{Term: 1, Index: 2}, 0)
	for range 20 {
		if b.tick(heartbeat); b.out.Probe != nil {
			t.Fatal("it asks for its leader although it cannot stand")
		}
	}
}

func TestLeaderRefusesVotesWithoutAProbe(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.lead(2)
	b.vote(3, 9, LogID{Term: 8, Index: 99}, false)
	if b.granted() || b.out.Probe != nil {
		t.Errorf("granted %v, probe %v", b.granted(), b.out.Probe)
	}
	b.wantRole(Leader)
}
