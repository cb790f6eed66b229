package raft

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// Rule 5 of the design: leases or instant failover, never both.

func leases(index uint64) SettingAt {
	return SettingAt{ID: LogID{Term: 1, Index: index}, Setting: Setting{Lease: timeout}}
}

// leased is n1 of three with leases committed at entry 1, long after its start.
func leased(t *testing.T) *bench {
	t.Helper()
	log := terms{1}
	b := restore(t, Restored{Vote: Vote{Term: 1}, Log: view(t, log), Committed: log.id(1),
		Memberships: []MembershipAt{{Membership: voters(3)}}, Settings: []SettingAt{leases(1)}})
	b.now = b.now.Add(timeout)
	return b
}

// leasing is n1 as a leader that n2 and n3 have just acknowledged everything of.
func leasing(t *testing.T) *bench {
	t.Helper()
	b := leased(t)
	b.lead(2, 3)
	b.now = b.now.Add(heartbeat)
	b.matched(2, 2, 3)
	b.wantLease(true)
	return b
}

func (b *bench) wantLease(want bool) {
	b.Helper()
	if until, ok := b.e.Lease(); ok != want {
		b.Fatalf("lease %t until %v from now, want %t", ok, until.Sub(b.now), want)
	}
}

func (b *bench) setLease(d time.Duration) {
	b.Helper()
	if _, err := b.e.ChangeSetting(b.now, Setting{Lease: d}); err != nil {
		b.Fatal(err)
	}
	b.flush()
}

func TestNoLeaseInAClusterWithInstantFailover(t *testing.T) {
	b := serving(t, voters(3))
	b.wantLease(false)
}

func TestLeaseCountsFromWhenTheRequestWasSentLessTheDrift(t *testing.T) {
	b := leasing(t)
	sent := b.now
	b.now = b.now.Add(timeout / 2)
	for _, i := range []int{2, 3} {
		b.e.Progress(b.now, Progress{Peer: member(i), Worker: b.worker(i), Matched: LogID{Term: 2, Index: 2}, Acked: sent.Add(heartbeat)})
	}
	b.flush()
	if until, ok := b.e.Lease(); !ok || !until.Equal(sent.Add(heartbeat).Add(timeout*9/10)) {
		t.Fatalf("lease %t until %v after the request was sent", ok, until.Sub(sent.Add(heartbeat)))
	}
	b.now = sent.Add(heartbeat).Add(timeout * 9 / 10)
	b.e.step(b.now)
	b.wantLease(false)
}

func TestNewLeaderHasNoLeaseBeforeItsOwnEntryIsCommitted(t *testing.T) {
	b := leased(t)
	b.lead(2, 3)
	b.matched(1, 2, 3) // both have the setting, nobody the leader's entry
	b.wantLease(false)
	b.matched(2, 2)
	b.wantLease(true)
}

func TestLeaseBeginsWhenTheSettingIsCommittedAndCountsOnlyWhoHasIt(t *testing.T) {
	b := serving(t, voters(5))
	b.answered(1, 4, 5)
	b.setLease(timeout)
	b.answered(1, 2, 3, 4, 5)
	b.wantLease(false)
	b.answered(2, 2)
	b.wantCommit(1)
	b.wantLease(false)
	b.answered(2, 3)
	b.wantCommit(2)
	b.wantLease(true)
	b.now = b.now.Add(timeout)
	b.answered(2, 2)
	b.answered(1, 4, 5)
	b.wantLease(false) // n4 and n5 answer, but have not acknowledged the setting
}

// The leader's own entry is not durable yet: two others of five have acknowledged the setting, which is not enough to commit it, though with the
// leader's own promise three voters made one.
func TestNoLeaseByASettingThatIsNotCommitted(t *testing.T) {
	b := serving(t, voters(5))
	b.slow = true
	b.setLease(timeout)
	b.answered(2, 2, 3)
	b.wantCommit(1)
	b.wantLease(false)
	b.answered(2, 4)
	b.wantCommit(2)
	b.wantLease(true)
}

func TestLeaseEndsWhenTheOppositeIsAppended(t *testing.T) {
	b := leasing(t)
	b.setLease(0)
	b.wantLease(false)
	if _, err := b.e.ChangeSetting(b.now, Setting{Lease: timeout}); !errors.Is(err, ErrSettingPending) {
		t.Fatalf("a second change at once: %v", err)
	}
	if b.e.promiseTime() != timeout {
		t.Fatal("the promise ends before the opposite is committed")
	}
	b.matched(3, 2)
	if b.e.promiseTime() != 0 {
		t.Fatal("the promise outlives the setting")
	}
	b.wantLease(false)
}

func TestLeaseEndsWhenATransferBeginsAndStaysOverOnceTheTargetWasTold(t *testing.T) {
	b := leasing(t)
	if err := b.e.Transfer(b.now, "n2"); err != nil {
		t.Fatal(err)
	}
	if out := b.flush(); len(out.TimeoutNow) != 1 {
		t.Fatalf("told %+v", out.TimeoutNow)
	}
	b.wantLease(false)
	b.now = b.now.Add(timeout)
	b.matched(2, 2, 3)
	b.tick(heartbeat)
	b.matched(2, 2, 3)
	if b.e.Transferring() {
		t.Fatal("the transfer never ends")
	}
	b.wantRole(Leader)
	b.wantLease(false)
}

func TestLeaseNeedsBothMajoritiesOfAJointConfiguration(t *testing.T) {
	b := leasing(t)
	joint := &Membership{Members: slices.Clone(voters(4).Members)}
	joint.Members[1].Outgoing, joint.Members[2].Outgoing = true, true
	joint.Members[1].Voter, joint.Members[2].Voter = false, false // [n1 n4]&[n2 n3]
	b.e.appendMembership(joint)
	b.flush()
	b.wantLease(false) // n4 has promised nothing
	b.e.Progress(b.now, Progress{Peer: member(4), Worker: b.worker(4), Matched: LogID{Term: 1, Index: 1}, Acked: b.now})
	b.flush()
	b.wantLease(true)
}

func TestVoterWithLeasesHelpsNobodyUntilItsPromiseIsOver(t *testing.T) {
	b := leased(t)
	b.append(2, 1, LogID{Term: 1, Index: 1}, 1)
	heard := b.now
	b.now = heard.Add(heartbeat * 2)
	if out := b.tick(0); out.Probe != nil {
		t.Fatal("it probes a leader whose absence means nothing to it")
	}
	b.probed(true)
	b.wantRole(Follower)
	// A higher term from elsewhere makes it forget its leader, not its promise.
	b.e.becomeFollower(3, Peer{})
	b.flush()
	for _, pre := range []bool{true, false} {
		b.now = heard.Add(timeout - 1)
		if b.vote(3, 9, LogID{Term: 9, Index: 9}, pre); b.granted() {
			t.Fatalf("pre %t: it helps another", pre)
		}
		if b.e.Elect(b.now) {
			t.Fatal("it helps itself")
		}
	}
	b.now = heard.Add(timeout)
	if b.vote(3, 9, LogID{Term: 9, Index: 9}, false); !b.granted() {
		t.Fatal("its promise never ends")
	}
}

func TestVoterKeepsThePromiseOfASettingThatIsNotCommitted(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.now = b.now.Add(timeout)
	set := Setting{Lease: timeout}
	b.request(&AppendRequest{Term: 1, Leader: member(2), Prev: LogID{Term: 1, Index: 1},
		Entries: []Entry{{ID: LogID{Term: 1, Index: 2}, Kind: EntrySetting, Setting: &set}}})
	if b.e.promiseTime() != timeout {
		t.Fatal("no promise")
	}
	b.append(3, 2, LogID{Term: 1, Index: 1}, 1, 2) // another leader undoes it
	if b.e.promiseTime() != 0 || b.e.SettingAt() != (SettingAt{}) {
		t.Fatalf("setting %+v after its entry was truncated", b.e.SettingAt())
	}
}

func TestVoterThatStartsHelpsNobodyForALease(t *testing.T) {
	b := leased(t)
	b.now = zero.Add(timeout - 1)
	if b.vote(3, 9, LogID{Term: 9, Index: 9}, false); b.granted() {
		t.Fatal("it votes right after its start")
	}
	if b.e.Elect(b.now) {
		t.Fatal("it stands right after its start")
	}
	b.now = zero.Add(timeout)
	if b.vote(3, 9, LogID{Term: 9, Index: 9}, false); !b.granted() {
		t.Fatal("it never votes")
	}
}

func TestTransferReleasesVotersFromWhatTheyPromisedTheLeader(t *testing.T) {
	b := leased(t)
	b.append(2, 1, LogID{Term: 1, Index: 1}, 1)
	b.to++
	b.e.VoteRequested(b.now, &VoteRequest{Term: 2, Candidate: member(3), Last: LogID{Term: 1, Index: 1}, Transfer: true}, b.to)
	b.flush()
	if !b.granted() {
		t.Fatal("a transfer waits for the promise made to the leader who wants it")
	}
}

func TestSettingTravelsInSnapshots(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.e.Installed(b.now, LogID{Term: 1, Index: 9}, MembershipAt{Membership: voters(3)}, leases(5))
	b.flush()
	if b.e.SettingAt() != leases(5) || b.e.promiseTime() != timeout {
		t.Fatalf("%+v", b.e.SettingAt())
	}
}

func TestSettingsThatCannotBeAreRefused(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	for _, bad := range []*Setting{nil, {Lease: -1}, {Lease: MaxLease + 1}} {
		out := b.request(&AppendRequest{Term: 1, Leader: member(2), Prev: LogID{Term: 1, Index: 1},
			Entries: []Entry{{ID: LogID{Term: 1, Index: 2}, Kind: EntrySetting, Setting: bad}}})
		if len(out.Violations) != 1 || b.e.LastLogID().Index != 1 {
			t.Fatalf("%+v is taken", bad)
		}
	}
	b = leasing(t)
	if _, err := b.e.ChangeSetting(b.now, Setting{Lease: -1}); err == nil {
		t.Fatal("a leader takes a lease before zero")
	}
}

func TestNoLeaseByWhatWasAcknowledgedBeforeTheMachineSlept(t *testing.T) {
	b := leasing(t)
	b.e.Slept(b.now.Add(1))
	b.flush()
	b.wantLease(false)
	b.now = b.now.Add(heartbeat)
	b.matched(2, 2)
	b.wantLease(true)
}

func TestLeasedCoversReadsByTheClockAndByWhatIsApplied(t *testing.T) {
	b := leasing(t)
	l := b.e.Leased()
	switch before, after := l.Until.Add(-1), l.Until; {
	case l.Index != 2:
		t.Fatalf("index %d", l.Index)
	case !l.Covers(before, 2) || !l.Covers(before, 3):
		t.Fatal("it covers no read within its time")
	case l.Covers(after, 2):
		t.Fatal("it outlives its time")
	case l.Covers(before, 1):
		t.Fatal("it covers a state that lacks what is committed")
	}
	b.setLease(0)
	if b.e.Leased() != nil || b.e.Leased().Covers(b.now, 9) {
		t.Fatal("there is a lease after the opposite was appended")
	}
}
