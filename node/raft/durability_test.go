package raft

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Rules 1 and 3 of the design: nothing leaves that depends on what is not on disk, and a leader without its disk is none.

func TestVoteAnswerWaitsForTheDisk(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.slow = true
	if out := b.vote(2, 2, LogID{Term: 1, Index: 1}, false); len(out.VoteReplies) != 0 || *out.Write.Vote != (Vote{Term: 2, For: "n2"}) {
		t.Fatalf("answers %+v, write %+v", out.VoteReplies, out.Write)
	}
	b.e.Durable(b.now, b.out.Write.Seq)
	b.flush()
	if !b.granted() {
		t.Error("not granted")
	}
}

func TestAppendAnswerWaitsForTheDisk(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.slow = true
	if out := b.append(2, 1, LogID{Term: 1, Index: 1}, 0, 1, 1); len(out.AppendReplies) != 0 {
		t.Fatalf("answers %+v", out.AppendReplies)
	}
	seq := b.out.Write.Seq
	// The same again, and what is durable already.
	if out := b.append(2, 1, LogID{Term: 1, Index: 1}, 0, 1, 1); len(out.AppendReplies) != 0 {
		t.Fatalf("a repetition is answered: %+v", out.AppendReplies)
	}
	if b.append(2, 1, LogID{Term: 1, Index: 1}, 0); b.answer().Matched.Index != 1 {
		t.Fatal("a heartbeat waits for the entries before it")
	}
	b.e.Durable(b.now, seq)
	if out := b.flush(); len(out.AppendReplies) != 2 {
		t.Fatalf("answers %+v", out.AppendReplies)
	}
}

func TestAnswerInANewTermWaitsForTheDisk(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.slow = true
	if out := b.append(2, 5, LogID{Term: 1, Index: 1}, 0); len(out.AppendReplies) != 0 || out.Write.Vote.Term != 5 {
		t.Fatalf("answers %+v, write %+v", out.AppendReplies, out.Write)
	}
	b.e.Durable(b.now, b.out.Write.Seq)
	b.flush()
	if resp := b.answer(); resp.Term != 5 || resp.Status != AppendMatched {
		t.Errorf("answer %+v", resp)
	}
}

func TestCandidateAsksWhenItsOwnVoteIsDurable(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.stand()
	b.slow = true
	if out := b.grant(2); len(out.Votes) != 0 {
		t.Fatalf("asks %+v", out.Votes)
	}
	b.e.Durable(b.now, b.out.Write.Seq)
	if out := b.flush(); len(out.Votes) != 2 {
		t.Fatalf("asks %+v", out.Votes)
	}
}

func TestLeaderCountsItselfOnlyWhenDurable(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.lead(2)
	b.slow = true
	b.propose(1)
	seq := b.out.Write.Seq
	b.matched(3, 2)
	b.wantCommit(2)
	b.e.Durable(b.now, seq)
	b.flush()
	b.wantCommit(3)

	b.propose(1)
	b.matched(4, 2, 3) // others are a quorum without it
	b.wantCommit(4)
	if got := b.e.Applicable(); got != 3 {
		t.Errorf("applies up to %d, durable here is 3", got)
	}
}

func TestLateCompletionOfAnOverwrittenEntryCountsForNothing(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.slow = true
	b.append(2, 1, LogID{Term: 1, Index: 1}, 0, 1, 1) // 1.2 1.3
	first := b.out.Write.Seq
	b.append(3, 2, LogID{Term: 1, Index: 1}, 0, 2, 2) // 2.2 2.3 in their place
	second := b.out.Write.Seq
	if b.out.Write.TruncateFrom != 2 {
		t.Fatalf("write %+v", b.out.Write)
	}
	b.e.Durable(b.now, first)
	out := b.flush()
	if b.e.DurableIndex() != 1 {
		t.Errorf("durable up to %d after the write of entries that are gone", b.e.DurableIndex())
	}
	for _, r := range out.AppendReplies {
		if r.Response.Status == AppendMatched {
			t.Errorf("answer %+v", r)
		}
	}
	b.e.Durable(b.now, second)
	out = b.flush()
	if b.e.DurableIndex() != 3 || len(out.AppendReplies) != 2 {
		t.Fatalf("durable up to %d, answers %+v", b.e.DurableIndex(), out.AppendReplies)
	}
	for _, r := range out.AppendReplies { // the older leader hears of the newer term
		want := AppendResponse{From: member(1), Term: 2, Status: AppendRefused}
		if r.To == 2 {
			want = AppendResponse{From: member(1), Term: 2, Status: AppendMatched, Matched: LogID{Term: 2, Index: 3}}
		}
		if r.Response != want {
			t.Errorf("answer %d is %+v", r.To, r.Response)
		}
	}
}

func TestSlowDiskThatMakesProgressKeepsTheLeader(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.lead(2)
	b.matched(2, 2, 3)
	b.slow = true
	var seqs []uint64
	for range 60 { // each write takes twenty steps of 40 ms, longer than an election timeout, but one ends at each step
		b.propose(1)
		seqs = append(seqs, b.out.Write.Seq)
		if len(seqs) > 20 {
			b.e.Durable(b.now, seqs[len(seqs)-21])
		}
		b.matched(2, 2, 3)
		if len(seqs) <= 20 {
			continue
		}
		b.tick(40 * time.Millisecond)
	}
	b.wantRole(Leader)
}

func TestStalledDiskEndsLeadership(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.lead(2)
	b.slow = true
	b.propose(1)
	for range 11 {
		b.tick(timeout / 10)
		if b.e.Role() == Leader {
			b.matched(2, 2, 3) // heartbeats are answered all the time
		}
	}
	b.wantRole(Follower)
	if out := b.tick(10 * timeout); len(out.Votes) != 0 {
		t.Error("it stands for election although it cannot write")
	}
}

// A core that was busy for long hears late of a disk that stopped long ago.
func TestStalledDiskIsJudgedByWhenItMovedAndNotByWhenThatIsHeard(t *testing.T) {
	b := newBench(t, voters(1), terms{1})
	b.tick(0)
	b.wantRole(Leader)
	b.slow = true
	b.propose(1)
	moved, at := b.out.Write.Seq, b.now
	b.propose(1)
	b.tick(timeout / 2)
	b.e.Durable(at, moved)
	b.tick(timeout / 2)
	b.wantRole(Leader)
	b.tick(timeout / 10)
	b.wantRole(Follower)
}

// What a core that was busy decides upon an old report, it writes now: that write has not waited yet.
func TestAWriteWaitsForTheDiskFromWhenItIsHandedOut(t *testing.T) {
	b := newBench(t, voters(1), terms{1})
	b.slow = true
	b.tick(0)
	b.wantRole(Candidate)
	at := b.now
	b.now = b.now.Add(2 * timeout)
	b.e.Durable(at, b.out.Write.Seq)
	b.tick(0)
	b.wantRole(Leader)
	b.tick(timeout)
	b.wantRole(Leader)
	b.tick(timeout / 10)
	b.wantRole(Follower)
}

func TestDurableBeyondWhatWasWritten(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.e.Durable(b.now, 1000)
	b.slow = true
	b.vote(2, 2, LogID{Term: 1, Index: 1}, false)
	if len(b.out.VoteReplies) != 0 {
		t.Error("a write is taken for durable before it was made")
	}
}

func TestTruncateWithinOneStep(t *testing.T) {
	// Several appends in one step, each overwriting the one before, make one write.
	for name, test := range map[string]struct {
		prev       []LogID
		truncate   uint64
		want       []LogID
		wantStored int
	}{
		"appended entries only":    {[]LogID{{1, 3}, {2, 4}}, 0, []LogID{{2, 4}, {3, 5}}, 2},
		"all that was appended":    {[]LogID{{1, 3}, {1, 3}}, 0, []LogID{{3, 4}}, 1},
		"and stored entries":       {[]LogID{{1, 3}, {1, 1}}, 2, []LogID{{3, 2}}, 1},
		"stored, then appended":    {[]LogID{{1, 1}, {2, 2}}, 2, []LogID{{2, 2}, {3, 3}}, 2},
		"stored, then more stored": {[]LogID{{1, 2}, {1, 1}}, 2, []LogID{{3, 2}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, voters(3), terms{1, 1, 1})
			b.slow = true
			first := &AppendRequest{Term: 2, Leader: member(2), Prev: test.prev[0]}
			for i := range uint64(2) {
				first.Entries = append(first.Entries, Entry{ID: LogID{Term: 2, Index: test.prev[0].Index + i + 1}, Kind: EntryCommand})
			}
			second := &AppendRequest{Term: 3, Leader: member(3), Prev: test.prev[1], Entries: []Entry{
				{ID: LogID{Term: 3, Index: test.prev[1].Index + 1}, Kind: EntryCommand},
			}}
			b.e.Append(b.now, first, 1)
			b.e.Append(b.now, second, 2)
			w := b.flush().Write
			var got []LogID
			for _, entry := range w.Append {
				got = append(got, entry.ID)
			}
			if w.TruncateFrom != test.truncate || len(got) != test.wantStored || got[len(got)-1] != test.want[len(test.want)-1] || got[0] != test.want[0] {
				t.Errorf("truncate from %d, append %v; want from %d, %v", w.TruncateFrom, got, test.truncate, test.want)
			}
		})
	}
}

func TestEngineDoesNotKeepTheCallersMemberships(t *testing.T) {
	given := make([]MembershipAt, 2, 4)
	given[0] = MembershipAt{Membership: voters(3)}
	given[1] = MembershipAt{ID: LogID{Term: 1, Index: 2}, Membership: voters(5)}
	b := restore(t, Restored{Vote: Vote{Term: 1}, Log: view(t, terms{1, 1}), Memberships: given})
	req := &AppendRequest{Term: 2, Leader: member(2), Prev: LogID{Term: 1, Index: 1}, Entries: []Entry{
		{ID: LogID{Term: 2, Index: 2}, Kind: EntryMembership, Membership: voters(4)},
	}}
	b.request(req)
	if len(given[1].Membership.Members) != 5 || len(b.e.Membership().Members) != 4 {
		t.Errorf("caller's %v, engine's %v", given[1].Membership, b.e.Membership())
	}
}

func TestEngineWithoutAMembershipOnlyFollows(t *testing.T) {
	e := New(Config{Self: member(1), HeartbeatInterval: heartbeat, ElectionTimeout: timeout, Rand: rand.New(rand.NewPCG(1, 1))},
		Restored{}, zero)
	if err := e.Check(); err != nil {
		t.Fatal(err)
	}
	now := zero.Add(time.Hour)
	e.Tick(now)
	if e.Role() != Follower || !e.Deadline().After(now) {
		t.Errorf("%v, deadline %v", e.Role(), e.Deadline().Sub(now))
	}
}
