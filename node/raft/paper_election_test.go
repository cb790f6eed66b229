package raft

import (
	"testing"
	"time"
)

// One test a sentence of the paper ("In Search of an Understandable Consensus Algorithm", extended version), named after its
// section.

// "If one server's current term is smaller than the other's, then it updates its current term to the larger value."
func TestPaper51_TermIsUpdatedByEveryKindOfMessage(t *testing.T) {
	for name, send := range map[string]func(*bench){
		"append request": func(b *bench) { b.append(2, 7, LogID{Term: 1, Index: 1}, 0) },
		"vote request":   func(b *bench) { b.vote(2, 7, LogID{}, false) },
		"vote answer": func(b *bench) {
			b.stand()
			b.e.VoteAnswer(b.now, &VoteResponse{From: member(2), Term: 7, Pre: true})
			b.flush()
		},
		"progress": func(b *bench) {
			b.lead(2)
			b.e.Progress(b.now, Progress{Peer: member(2), Worker: b.worker(2), SeenTerm: 7})
			b.flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, voters(3), terms{1})
			send(b)
			if b.e.Vote() != (Vote{Term: 7}) {
				t.Errorf("%v", b.e.Vote())
			}
		})
	}
}

// "If a candidate or leader discovers that its term is out of date, it immediately reverts to follower state."
func TestPaper51_CandidateAndLeaderRevertToFollower(t *testing.T) {
	for _, role := range []Role{PreCandidate, Candidate, Leader} {
		b := newBench(t, voters(3), terms{1})
		b.stand()
		if role != PreCandidate {
			b.grant(2)
		}
		if role == Leader {
			b.grant(2)
		}
		b.wantRole(role)
		b.append(3, 9, LogID{Term: 1, Index: 1}, 0)
		b.wantRole(Follower)
		if b.e.Leader() != member(3) {
			t.Errorf("%v: follows %v", role, b.e.Leader())
		}
	}
}

// "If a server receives a request with a stale term number, it rejects the request."
func TestPaper51_StaleTermsAreRejected(t *testing.T) {
	b := newBench(t, voters(3), terms{1, 5})
	b.append(2, 4, LogID{Term: 1, Index: 1}, 2, 4)
	if resp := b.answer(); resp.Status != AppendRefused || resp.Term != 5 || b.e.LastLogID().Term != 5 {
		t.Errorf("append: %+v, log up to %v", resp, b.e.LastLogID())
	}
	if b.vote(2, 4, LogID{Term: 4, Index: 9}, false); b.granted() {
		t.Error("vote: granted")
	}
}

// "When servers start up, they begin as followers."
func TestPaper52_ServersStartAsFollowers(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.wantRole(Follower)
	if b.e.Leader() != (Peer{}) {
		t.Errorf("follows %v", b.e.Leader())
	}
}

// "A server remains in follower state as long as it receives valid RPCs from a leader or candidate."
func TestPaper52_FollowersStayWhileTheyHearTheLeader(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	for range 100 {
		b.append(2, 1, LogID{Term: 1, Index: 1}, 0)
		b.tick(timeout * 9 / 10)
		b.wantRole(Follower)
	}
}

// "If a follower receives no communication over a period of time called the election timeout, then it assumes there is no viable
// leader and begins an election to choose a new leader."
func TestPaper52_SilenceStartsAnElection(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.append(2, 1, LogID{Term: 1, Index: 1}, 0)
	heard := b.now
	b.tick(timeout - time.Millisecond)
	b.wantRole(Follower)
	b.stand()
	if waited := b.now.Sub(heard); waited < timeout || waited > 2*timeout {
		t.Errorf("after %v", waited)
	}
}

// "To begin an election, a follower increments its current term and transitions to candidate state. It then votes for itself and
// issues RequestVote RPCs in parallel to each of the other servers in the cluster."
func TestPaper52_CandidateVotesForItselfAndAsksAll(t *testing.T) {
	b := newBench(t, voters(5), terms{1})
	b.stand()
	out := b.grant(2, 3)
	b.wantRole(Candidate)
	if b.e.Vote() != (Vote{Term: 2, For: "n1"}) || len(out.Votes) != 4 {
		t.Fatalf("%v, asks %+v", b.e.Vote(), out.Votes)
	}
	for _, v := range out.Votes {
		if want := (VoteRequest{Term: 2, Candidate: member(1), Last: LogID{Term: 1, Index: 1}}); v.Request != want {
			t.Errorf("asks %v: %+v", v.To, v.Request)
		}
	}
}

// "A candidate wins an election if it receives votes from a majority of the servers in the full cluster for the same term."
func TestPaper52_MajorityWins(t *testing.T) {
	for size := 1; size <= 7; size++ {
		b := newBench(t, voters(size), terms{1})
		b.tick(2 * timeout)
		for range 2 { // pre-vote, vote
			for votes := 1; 2*votes <= size; votes++ {
				if b.e.Role() == Leader {
					t.Errorf("%d voters: it leads too early", size)
				}
				b.grant(votes + 1)
			}
		}
		b.wantRole(Leader)
	}
}

// "Each server will vote for at most one candidate in a given term, on a first-come-first-served basis."
func TestPaper52_OneVoteATerm(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	last := LogID{Term: 1, Index: 1}
	if b.vote(2, 2, last, false); !b.granted() {
		t.Error("the first is refused")
	}
	if b.vote(3, 2, LogID{Term: 1, Index: 9}, false); b.granted() {
		t.Error("the second is granted, too")
	}
	if b.vote(2, 2, last, false); !b.granted() {
		t.Error("the first, asking again, is refused")
	}
	// After a crash as well.
	again := restore(t, Restored{Vote: b.e.Vote(), Log: view(t, terms{1}), Memberships: []MembershipAt{{Membership: voters(3)}}})
	if again.vote(3, 2, last, false); again.granted() {
		t.Error("after a restart it votes again")
	}
	if again.vote(3, 3, last, false); !again.granted() {
		t.Error("in the next term it does not vote")
	}
}

// "If the leader's term is at least as large as the candidate's current term, then the candidate recognizes the leader as legitimate
// and returns to follower state. If the term in the RPC is smaller, then the candidate rejects the RPC and continues."
func TestPaper52_CandidateRecognizesALeader(t *testing.T) {
	for term, want := range map[uint64]Role{1: Candidate, 2: Follower, 3: Follower} {
		b := newBench(t, voters(3), terms{1})
		b.stand()
		b.grant(2)
		b.append(3, term, LogID{Term: 1, Index: 1}, 0)
		b.wantRole(want)
	}
}

// "Each candidate restarts its randomized election timeout at the start of an election, and it waits for that timeout to elapse
// before starting the next election."
func TestPaper52_TimeoutsAreRandom(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	seen := map[time.Duration]bool{}
	for range 20 {
		before := b.now
		b.stand()
		b.stand2(t)
		wait := b.e.Deadline().Sub(b.now)
		if seen[wait] = true; wait < timeout || wait > 2*timeout {
			t.Errorf("it waits %v", wait)
		}
		if b.now.Sub(before) < timeout {
			t.Errorf("the next election begins after %v", b.now.Sub(before))
		}
	}
	if len(seen) < 15 {
		t.Errorf("%d different timeouts of 20", len(seen))
	}
}

// "Leaders send periodic heartbeats (AppendEntries RPCs that carry no log entries) to all followers in order to maintain their
// authority."
func TestPaper52_LeaderKeepsItsTargetsFresh(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.lead(2)
	for range 50 {
		b.matched(2, 2, 3)
		out := b.tick(b.e.Deadline().Sub(b.now))
		targets := b.e.Replication()
		if !out.Replicate || len(targets) != 2 {
			t.Fatalf("%+v", targets)
		}
		for _, target := range targets {
			if left := target.Until.Sub(b.now); left != timeout { // a worker sends on its own until then
				t.Fatalf("worker may go on for %v", left)
			}
		}
	}
}

// "The RPC includes information about the candidate's log, and the voter denies its vote if its own log is more up-to-date than
// that of the candidate. If the logs have last entries with different terms, then the log with the later term is more up-to-date. If
// the logs end with the same term, then whichever log is longer is more up-to-date."
func TestPaper54_1_VoterDeniesWhoIsBehind(t *testing.T) {
	for _, test := range []struct {
		log  terms
		last LogID
		want bool
	}{
		{terms{1}, LogID{1, 1}, true},
		{terms{1}, LogID{2, 1}, true},
		{terms{1, 1}, LogID{2, 1}, true},
		{terms{1}, LogID{1, 2}, true},
		{terms{1, 1}, LogID{1, 1}, false},
		{terms{2}, LogID{1, 1}, false},
		{terms{2}, LogID{1, 2}, false},
		{terms{1, 2}, LogID{1, 9}, false},
	} {
		for _, pre := range []bool{true, false} {
			b := newBench(t, voters(3), test.log)
			if b.vote(2, 5, test.last, pre); b.granted() != test.want {
				t.Errorf("log %v, candidate's last %v, pre %v: granted %v", test.log, test.last, pre, b.granted())
			}
		}
	}
}

// "If a server receives a RequestVote RPC within the minimum election timeout of hearing from a current leader, it does not update
// its term or grant its vote."
func TestPaper6_VotersInTouchIgnoreCandidates(t *testing.T) {
	for _, pre := range []bool{true, false} {
		b := newBench(t, voters(3), terms{1})
		b.append(2, 1, LogID{Term: 1, Index: 1}, 0)
		b.now = b.now.Add(timeout - time.Millisecond)
		b.vote(3, 5, LogID{Term: 4, Index: 9}, pre)
		if len(b.out.VoteReplies) != 0 || b.e.Vote().Term != 1 {
			t.Fatalf("answers %+v, %v", b.out.VoteReplies, b.e.Vote())
		}
		b.probed(false)
		if b.granted() || b.e.Vote().Term != 1 {
			t.Errorf("granted %v, %v", b.granted(), b.e.Vote())
		}
		b.now = b.now.Add(time.Millisecond)
		if b.vote(3, 5, LogID{Term: 4, Index: 9}, pre); !b.granted() {
			t.Error("refused although the leader is silent for an election timeout")
		}
	}
}

// Dissertation 6.2: "A leader steps down if an election timeout elapses without a successful round of heartbeats to a majority of
// its cluster." Counted from when a request was sent: a process that was paused finds all its answers old.
func TestDissertation62_LeaderStepsDownWithoutQuorum(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.lead(2)
	b.matched(2, 2)
	sent := b.now
	b.tick(timeout)
	b.wantRole(Leader)
	b.now = b.now.Add(time.Millisecond)
	b.e.Progress(b.now, Progress{Peer: member(2), Worker: b.worker(2), Acked: sent}) // late
	b.flush()
	b.tick(0)
	b.wantRole(Follower)
}
