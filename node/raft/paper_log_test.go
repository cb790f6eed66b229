package raft

import (
	"testing"
	"time"
)

// The sentences of section 5.3 and what follows: logs, commits, configurations, reads. See paper_election_test.go.

// "The leader appends the command to its log as a new entry, then issues AppendEntries RPCs in parallel to each of the other
// servers to replicate the entry."
func TestPaper53_LeaderAppendsAndReplicates(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.lead(2)
	entries := []Entry{{Kind: EntryCommand, Data: []byte("x")}, {Kind: EntryCommand, Data: []byte("y")}}
	first, ok := b.e.Propose(b.now, entries)
	out := b.flush()
	if !ok || first != (LogID{Term: 2, Index: 3}) || !out.Replicate || len(out.Write.Append) != 2 {
		t.Fatalf("%v %v, %+v", first, ok, out)
	}
	for _, target := range b.e.Replication() {
		if target.Last != (LogID{Term: 2, Index: 4}) || target.Term != 2 {
			t.Errorf("%+v", target)
		}
	}
}

// "A log entry is committed once the leader that created the entry has replicated it on a majority of the servers. This also
// commits all preceding entries in the leader's log, including entries created by previous leaders."
func TestPaper53_MajorityCommitsWithAllBefore(t *testing.T) {
	b := newBench(t, voters(5), terms{1, 1})
	b.lead(2, 3)
	b.matched(3, 2)
	b.wantCommit(0)
	b.matched(3, 3)
	b.wantCommit(3)
}

// "Once a follower learns that a log entry is committed, it applies the entry to its local state machine (in log order)."
func TestPaper53_FollowerAppliesWhatIsCommittedAndDurable(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.slow = true
	b.append(2, 1, LogID{Term: 1, Index: 1}, 3, 1, 1)
	b.wantCommit(3)
	if got := b.e.Applicable(); got != 1 {
		t.Errorf("applicable %d before it is durable", got)
	}
	b.e.Durable(b.now, b.out.Write.Seq)
	b.flush()
	if got := b.e.Applicable(); got != 3 {
		t.Errorf("applicable %d", got)
	}
}

// "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)." (figure 2)
func TestPaper53_FollowerCommitsNoFurtherThanVerified(t *testing.T) {
	b := newBench(t, voters(3), terms{1, 1, 1, 1}) // the tail may not be the leader's
	b.append(2, 2, LogID{Term: 1, Index: 2}, 9)
	b.wantCommit(2)
	b.append(2, 2, LogID{Term: 1, Index: 2}, 9, 2)
	b.wantCommit(3)
	if b.e.LastLogID() != (LogID{Term: 2, Index: 3}) {
		t.Errorf("log up to %v", b.e.LastLogID())
	}
	b.append(2, 2, LogID{Term: 1, Index: 1}, 1) // an old one
	b.wantCommit(3)
}

// "If the follower does not find an entry in its log with the same index and term, then it refuses the new entries."
func TestPaper53_ConsistencyCheck(t *testing.T) {
	for name, test := range map[string]struct {
		prev LogID
		want AppendResponse
	}{
		"at the beginning": {LogID{}, AppendResponse{Status: AppendMatched, Matched: LogID{Term: 4, Index: 1}}},
		"at an entry":      {LogID{Term: 1, Index: 1}, AppendResponse{Status: AppendMatched, Matched: LogID{Term: 4, Index: 2}}},
		"at the end":       {LogID{Term: 3, Index: 3}, AppendResponse{Status: AppendMatched, Matched: LogID{Term: 4, Index: 4}}},
		"beyond the end":   {LogID{Term: 3, Index: 9}, AppendResponse{Status: AppendConflict, Hint: LogID{Term: 3, Index: 3}}},
		"another term":     {LogID{Term: 2, Index: 3}, AppendResponse{Status: AppendConflict, Hint: LogID{Term: 1, Index: 2}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, voters(3), terms{1, 1, 3})
			b.append(2, 4, test.prev, 0, 4)
			test.want.From, test.want.Term = member(1), 4
			if got := b.answer(); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// "If an existing entry conflicts with a new one (same index but different terms), delete the existing entry and all that follow
// it. Append any new entries not already in the log." (figure 2)
func TestPaper53_OnlyConflictsTruncate(t *testing.T) {
	id := func(term, index uint64) LogID { return LogID{Term: term, Index: index} }
	for name, test := range map[string]struct {
		prev     LogID
		entries  []uint64
		truncate uint64
		appended int
		last     LogID
	}{
		"new at the end":          {id(2, 3), []uint64{3, 3}, 0, 2, id(3, 5)},
		"overlap":                 {id(1, 1), []uint64{1, 2, 3}, 0, 1, id(3, 4)},
		"overlap within":          {id(1, 1), []uint64{1}, 0, 0, id(2, 3)},
		"repeated":                {id(0, 0), []uint64{1, 1, 2}, 0, 0, id(2, 3)},
		"heartbeat in the middle": {id(1, 1), nil, 0, 0, id(2, 3)},
		"conflict at the end":     {id(1, 2), []uint64{3}, 3, 1, id(3, 3)},
		"conflict in the middle":  {id(1, 1), []uint64{3}, 2, 1, id(3, 2)},
		"conflict after overlap":  {id(0, 0), []uint64{1, 3, 3}, 2, 2, id(3, 3)},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, voters(3), terms{1, 1, 2})
			b.append(2, 3, test.prev, 0, test.entries...)
			truncate, appended := uint64(0), 0
			if w := b.out.Write; w != nil {
				truncate, appended = w.TruncateFrom, len(w.Append)
			}
			if truncate != test.truncate || appended != test.appended || b.e.LastLogID() != test.last {
				t.Errorf("truncates from %d, appends %d, log up to %v", truncate, appended, b.e.LastLogID())
			}
			if want := id(3, test.prev.Index+uint64(len(test.entries))).Index; b.answer().Matched.Index != want {
				t.Errorf("matched %v, want index %d", b.answer().Matched, want)
			}
		})
	}
}

// "Raft never commits log entries from previous terms by counting replicas. Only log entries from the leader's current term are
// committed by counting replicas; once an entry from the current term has been committed in this way, then all prior entries are
// committed indirectly because of the Log Matching Property."
func TestPaper54_2_OnlyOwnTermCommitsByCounting(t *testing.T) {
	b := newBench(t, voters(3), terms{1, 2})
	b.lead(2)
	b.matched(1, 2, 3)
	b.wantCommit(0)
	b.matched(2, 2, 3)
	b.wantCommit(0)
	b.matched(3, 3)
	b.wantCommit(3)
}

// "Raft RPCs are idempotent, so this causes no harm." (If a server crashes after completing an RPC but before responding.)
func TestPaper55_RepeatedRequestsDoNoHarm(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.append(2, 2, LogID{Term: 1, Index: 1}, 1, 2, 2)
	first := b.answer()
	for range 3 {
		b.append(2, 2, LogID{Term: 1, Index: 1}, 1, 2, 2)
		if b.out.Write != nil || b.answer() != first {
			t.Errorf("writes %+v, answers %+v", b.out.Write, b.answer())
		}
	}
}

// "Once a given server adds the new configuration entry to its log, it uses that configuration for all future decisions (a server
// always uses the latest configuration in its log, regardless of whether the entry is committed)."
func TestPaper6_LatestConfigurationInTheLogIsUsed(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.lead(2)
	b.matched(2, 2, 3)
	b.wantCommit(2)
	five := []Entry{{Kind: EntryMembership, Membership: voters(5)}}
	b.e.Propose(b.now, five)
	b.flush()
	if len(b.e.Replication()) != 4 {
		t.Errorf("targets %+v", b.e.Replication())
	}
	b.matched(3, 2)
	b.wantCommit(2) // two of five
	b.matched(3, 4)
	b.wantCommit(3)
}

// "Each leader commits a blank no-op entry into the log at the start of its term."
func TestPaper8_LeaderBeginsWithABlankEntry(t *testing.T) {
	b := newBench(t, voters(3), terms{1, 1})
	out := b.lead(2)
	if len(out.Write.Append) != 1 || out.Write.Append[0].Kind != EntryBlank || out.Write.Append[0].ID != (LogID{Term: 2, Index: 3}) {
		t.Errorf("writes %+v", out.Write)
	}
	if b.e.Serving() {
		t.Error("it serves before that is committed")
	}
	b.matched(3, 2)
	if !b.e.Serving() {
		t.Error("it does not serve")
	}
}

// "A leader must check whether it has been deposed before processing a read-only request. Raft handles this by having the leader
// exchange heartbeat messages with a majority of the cluster before responding to read-only requests."
func TestPaper8_ReadsNeedARoundOfTheirOwn(t *testing.T) {
	b := newBench(t, voters(5), terms{1})
	b.lead(2, 3)
	b.e.Read(b.now, 1)
	b.matched(1, 2, 3, 4, 5)
	if len(b.out.Reads) != 0 || b.e.leading.reads.begun != 0 {
		t.Fatalf("a read before the first commit: %+v", b.out.Reads)
	}
	b.matched(2, 2, 3)
	if b.matched(2, 2); len(b.out.Reads) != 0 {
		t.Fatalf("two of five have confirmed: %+v", b.out.Reads)
	}
	b.e.Read(b.now, 2) // while a round is under way
	if b.matched(2, 3); len(b.out.Reads) != 1 || b.out.Reads[0] != (ReadReady{ID: 1, Index: 2}) {
		t.Fatalf("reads %+v", b.out.Reads)
	}
	b.propose(1)
	b.matched(3, 2, 3)
	if len(b.out.Reads) != 1 || b.out.Reads[0] != (ReadReady{ID: 2, Index: 2}) {
		t.Fatalf("reads %+v", b.out.Reads)
	}
	b.e.Read(b.now, 3)
	b.append(2, 9, LogID{Term: 1, Index: 1}, 0)
	if len(b.out.Reads) != 1 || !b.out.Reads[0].Lost {
		t.Errorf("a deposed leader answers %+v", b.out.Reads)
	}
	if b.e.Read(b.now, 4) {
		t.Error("a follower takes a read")
	}
}

// Known bug 12: progress of an earlier leadership, or of a member that was removed and added again, counts for nothing.
func TestProgressOfAnotherWorkerIsVoid(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.lead(2)
	old := Progress{Peer: member(2), Worker: b.worker(2), Matched: LogID{Term: 1, Index: 1}, Acked: b.now}
	b.append(3, 3, LogID{Term: 1, Index: 1}, 0)
	b.tick(2 * timeout)
	b.lead(2)
	b.now = b.now.Add(time.Millisecond)
	old.Acked = b.now
	b.e.Progress(b.now, old)
	stranger := Progress{Peer: Peer{ID: "n2", Incarnation: 99}, Worker: b.worker(2), Matched: LogID{Term: 1, Index: 1}, Acked: b.now}
	b.e.Progress(b.now, stranger)
	for _, target := range b.e.Targets() {
		if target.Matched != (LogID{}) || target.Acked.Equal(b.now) {
			t.Errorf("counted: %+v", target)
		}
	}
}

// A target that is suspect counts for nothing until its worker is another one.
func TestSuspectDoesNotCount(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.lead(2)
	b.matched(1, 2, 3)
	b.e.Progress(b.now, Progress{Peer: member(2), Worker: b.worker(2), Suspect: "it lies"})
	if out := b.flush(); len(out.Violations) != 1 {
		t.Errorf("violations %q", out.Violations)
	}
	b.matched(2, 2)
	b.wantCommit(0)
	b.e.Progress(b.now, Progress{Peer: member(3), Worker: b.worker(3), Matched: LogID{Term: 9, Index: 2}})
	if out := b.flush(); len(out.Violations) != 1 {
		t.Errorf("matched what is not in the log; violations %q", out.Violations)
	}
	b.wantCommit(0)
	b.matched(2, 3)
	b.wantCommit(2)
}
