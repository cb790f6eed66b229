package raft

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// bench holds one engine, n1 of its cluster, and plays all the others.
type bench struct {
	*testing.T
	e   *Engine
	now time.Time
	// slow: writes are durable only when the test says so.
	slow bool
	out  Output
	to   ReplyTo
}

func member(i int) Peer {
	return Peer{ID: NodeID(fmt.Sprintf("n%d", i)), Incarnation: Incarnation(i)}
}

func voters(n int) *Membership {
	peers := make([]Peer, n)
	for i := range peers {
		peers[i] = member(i + 1)
	}
	return NewMembership(peers...)
}

func view(t testing.TB, log terms) LogView {
	t.Helper()
	v, err := NewLogView(LogID{}, log.id(uint64(len(log))), log.Term)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// newBench restores n1 from a log, with the newest term as its own.
func newBench(t *testing.T, m *Membership, log terms) *bench {
	t.Helper()
	return restore(t, Restored{
		Vote: Vote{Term: log.id(uint64(len(log))).Term}, Log: view(t, log), Memberships: []MembershipAt{{Membership: m}},
	})
}

func restore(t *testing.T, restored Restored) *bench {
	t.Helper()
	b := &bench{T: t, now: zero}
	b.e = New(Config{
		Self: member(1), HeartbeatInterval: heartbeat, ElectionTimeout: timeout, Rand: rand.New(rand.NewPCG(1, 1)),
	}, restored, b.now)
	b.flush()
	return b
}

// flush takes the outputs of what was called, and makes writes durable unless the disk is slow.
func (b *bench) flush() Output {
	b.Helper()
	out := b.e.Output()
	for {
		if err := b.e.Check(); err != nil {
			b.Fatal(err)
		}
		if out.Write == nil || b.slow {
			break
		}
		b.e.Durable(b.now, out.Write.Seq)
		next := b.e.Output()
		out.Votes = append(out.Votes, next.Votes...)
		out.VoteReplies = append(out.VoteReplies, next.VoteReplies...)
		out.AppendReplies = append(out.AppendReplies, next.AppendReplies...)
		out.Reads = append(out.Reads, next.Reads...)
		out.TimeoutNow = append(out.TimeoutNow, next.TimeoutNow...)
		out.TimeoutNowReplies = append(out.TimeoutNowReplies, next.TimeoutNowReplies...)
		out.Violations = append(out.Violations, next.Violations...)
		if next.Probe != nil {
			out.Probe = next.Probe
		}
		if next.Write == nil {
			break
		}
		out.Write = next.Write
	}
	b.out = out
	return out
}

// tick lets time pass, then judges the timers.
func (b *bench) tick(d time.Duration) Output {
	b.Helper()
	b.now = b.now.Add(d)
	b.e.Tick(b.now)
	if !b.e.Deadline().After(b.now) {
		b.Fatalf("deadline %v is not after now", b.e.Deadline().Sub(b.now))
	}
	return b.flush()
}

// stand waits until the engine asks for pre-votes.
func (b *bench) stand() Output {
	b.Helper()
	for range 100 {
		if out := b.tick(max(time.Microsecond, b.e.Deadline().Sub(b.now))); b.e.Role() != Follower {
			return out
		}
	}
	b.Fatal("it never stands for election")
	return Output{}
}

// grant answers the pre-vote or vote that is under way.
func (b *bench) grant(from ...int) Output {
	b.Helper()
	c := *b.e.campaign
	for _, i := range from {
		b.e.VoteAnswer(b.now, &VoteResponse{From: member(i), Term: c.term, Granted: true, Pre: c.pre})
	}
	return b.flush()
}

// lead makes the engine leader with the votes of the given members.
func (b *bench) lead(from ...int) Output {
	b.Helper()
	b.stand()
	b.grant(from...)
	out := b.grant(from...)
	if b.e.Role() != Leader {
		b.Fatalf("it does not lead: %v", b.e.Role())
	}
	return out
}

// append hands in entries of the given terms after prev, from the leader of that name.
func (b *bench) append(leader int, term uint64, prev LogID, commit uint64, entryTerms ...uint64) Output {
	b.Helper()
	req := &AppendRequest{Term: term, Leader: member(leader), Prev: prev, Commit: commit}
	for i, t := range entryTerms {
		req.Entries = append(req.Entries, Entry{ID: LogID{Term: t, Index: prev.Index + uint64(i) + 1}, Kind: EntryCommand})
	}
	return b.request(req)
}

func (b *bench) request(req *AppendRequest) Output {
	b.Helper()
	b.to++
	b.e.Append(b.now, req, b.to)
	return b.flush()
}

// answer is the one append answer of the last step.
func (b *bench) answer() AppendResponse {
	b.Helper()
	if len(b.out.AppendReplies) != 1 {
		b.Fatalf("want one answer, got %+v", b.out.AppendReplies)
	}
	return b.out.AppendReplies[0].Response
}

func (b *bench) vote(from int, term uint64, last LogID, pre bool) Output {
	b.Helper()
	b.to++
	b.e.VoteRequested(b.now, &VoteRequest{Term: term, Candidate: member(from), Last: last, Pre: pre}, b.to)
	return b.flush()
}

// granted tells the one vote answer of the last step.
func (b *bench) granted() bool {
	b.Helper()
	if len(b.out.VoteReplies) != 1 {
		b.Fatalf("want one vote answer, got %+v", b.out.VoteReplies)
	}
	return b.out.VoteReplies[0].Response.Granted
}

func (b *bench) worker(i int) uint64 {
	b.Helper()
	for _, t := range b.e.Replication() {
		if t.Peer == member(i) {
			return t.Worker
		}
	}
	b.Fatalf("no worker for n%d", i)
	return 0
}

// matched reports that members have the log up to index, and answered just now.
func (b *bench) matched(index uint64, from ...int) Output {
	b.Helper()
	term, _ := b.e.log.Term(index)
	for _, i := range from {
		b.e.Progress(b.now, Progress{
			Peer: member(i), Worker: b.worker(i), Matched: LogID{Term: term, Index: index}, Acked: b.now, Round: b.e.leading.reads.begun,
		})
	}
	return b.flush()
}

func (b *bench) propose(n int) {
	b.Helper()
	entries := make([]Entry, n)
	for i := range entries {
		entries[i].Kind = EntryCommand
	}
	if _, ok := b.e.Propose(b.now, entries); !ok {
		b.Fatal("it does not take proposals")
	}
	b.flush()
}

func (b *bench) wantRole(want Role) {
	b.Helper()
	if got := b.e.Role(); got != want {
		b.Fatalf("it is %v, want %v", got, want)
	}
}

func (b *bench) wantCommit(want uint64) {
	b.Helper()
	if got := b.e.Commit(); got != want {
		b.Fatalf("commit index %d, want %d", got, want)
	}
}
