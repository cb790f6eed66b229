package raft

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestEngineSurvivesAnyInput: whatever comes, in whatever order, and be it forged, the engine keeps its invariants, loses nothing
// that is committed, answers each request once, and wants to be called again only later (rule 9 of the design).
func TestEngineSurvivesAnyInput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		purged := LogID{}
		if rapid.Bool().Draw(t, "purged") {
			purged = LogID{Term: 2, Index: 3}
		}
		log := LogView{purged: purged, last: purged}
		for range rapid.IntRange(0, 5).Draw(t, "entries") {
			log.Append(LogID{Term: max(1, log.last.Term) + rapid.Uint64Range(0, 1).Draw(t, "later"), Index: log.last.Index + 1})
		}
		m := voters(rapid.IntRange(1, 5).Draw(t, "members"))
		for i := range m.Members {
			m.Members[i].Voter = i == 1 || rapid.IntRange(0, 4).Draw(t, "voter") > 0
			m.Members[i].Outgoing = rapid.IntRange(0, 4).Draw(t, "outgoing") == 0
		}
		now := zero
		e := New(Config{Self: member(1), HeartbeatInterval: heartbeat, ElectionTimeout: timeout, Rand: rand.New(rand.NewPCG(1, 1))},
			Restored{Vote: Vote{Term: log.last.Term}, Log: log, Committed: purged, Memberships: []MembershipAt{{Membership: m}}}, now)
		terms := rapid.OneOf(rapid.Uint64Range(0, 8), rapid.SampledFrom([]uint64{MaxTerm, MaxTerm + 1, math.MaxUint64}))
		indexes := rapid.OneOf(rapid.Uint64Range(0, 12), rapid.SampledFrom([]uint64{MaxIndex, math.MaxUint64}))
		peers := rapid.Custom(func(t *rapid.T) Peer {
			return Peer{ID: rapid.SampledFrom([]NodeID{"", "n1", "n2", "n3", "n4", "n9"}).Draw(t, "id"),
				Incarnation: Incarnation(rapid.IntRange(1, 4).Draw(t, "incarnation"))}
		})
		ids := rapid.Custom(func(t *rapid.T) LogID { return LogID{Term: terms.Draw(t, "term"), Index: indexes.Draw(t, "index")} })
		// near draws an id that may well be in the log, so that more than refusals is tried.
		near := rapid.Custom(func(t *rapid.T) LogID {
			index := rapid.Uint64Range(0, e.log.last.Index).Draw(t, "index")
			term, _ := e.log.Term(index)
			return LogID{Term: term, Index: index}
		})
		var to ReplyTo
		answered := map[ReplyTo]bool{}
		writes, durable := uint64(0), uint64(0)
		committed := []LogID{purged}

		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				req := &AppendRequest{Term: terms.Draw(t, "request term"), Leader: peers.Draw(t, "leader"), Commit: indexes.Draw(t, "commit")}
				req.Prev = rapid.OneOf(near, near, ids).Draw(t, "prev")
				id := req.Prev
				for range rapid.IntRange(0, 4).Draw(t, "count") {
					id.Index++
					id.Term += rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(t, "next")
					entry := Entry{ID: id, Kind: EntryCommand}
					if rapid.IntRange(0, 5).Draw(t, "kind") == 0 {
						entry.Kind, entry.Membership = EntryMembership, voters(rapid.IntRange(1, 4).Draw(t, "voters"))
					}
					req.Entries = append(req.Entries, entry)
				}
				if rapid.IntRange(0, 3).Draw(t, "plausible") > 0 {
					req.Leader = member(2)
					req.Term = max(id.Term, e.Vote().Term)
				}
				to++
				e.Append(now, req, to)
			},
			"vote": func(t *rapid.T) {
				to++
				e.VoteRequested(now, &VoteRequest{Term: terms.Draw(t, "term"), Candidate: peers.Draw(t, "candidate"),
					Last: ids.Draw(t, "last"), Pre: rapid.Bool().Draw(t, "pre")}, to)
			},
			"vote answer": func(t *rapid.T) {
				resp := &VoteResponse{From: peers.Draw(t, "from"), Term: terms.Draw(t, "term"),
					Granted: rapid.Bool().Draw(t, "granted"), Pre: rapid.Bool().Draw(t, "pre")}
				if c := e.campaign; c != nil && rapid.Bool().Draw(t, "fits") {
					*resp = VoteResponse{From: member(rapid.IntRange(1, 5).Draw(t, "voter")), Term: c.term, Granted: true, Pre: c.pre}
				}
				e.VoteAnswer(now, resp)
			},
			"probe answer": func(t *rapid.T) {
				e.ProbeAnswer(now, peers.Draw(t, "peer"), rapid.Bool().Draw(t, "gone"), time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "round trip")))
			},
			"leader's probe answer": func(t *rapid.T) {
				e.ProbeAnswer(now, e.Leader(), rapid.Bool().Draw(t, "gone"), time.Millisecond)
			},
			"progress": func(t *rapid.T) {
				p := Progress{Peer: peers.Draw(t, "peer"), Worker: rapid.Uint64Range(0, 9).Draw(t, "worker"),
					Matched: rapid.OneOf(near, ids).Draw(t, "matched"), Acked: now, SeenTerm: rapid.SampledFrom([]uint64{0, 0, 0, 3, math.MaxUint64}).Draw(t, "seen")}
				if targets := e.Replication(); len(targets) > 0 && rapid.Bool().Draw(t, "fits") {
					target := rapid.SampledFrom(targets).Draw(t, "target")
					p.Peer, p.Worker, p.Round = target.Peer, target.Worker, target.Round
				}
				e.Progress(now, p)
			},
			"durable": func(t *rapid.T) {
				durable = max(durable, rapid.Uint64Range(0, writes+1).Draw(t, "seq"))
				e.Durable(now, durable)
			},
			"time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.Int64Range(0, int64(timeout)).Draw(t, "time")))
				e.Tick(now)
				if !e.Deadline().After(now) {
					t.Fatalf("deadline %v is not after now", e.Deadline().Sub(now))
				}
			},
			"propose": func(t *rapid.T) {
				e.Propose(now, make([]Entry, rapid.IntRange(0, 3).Draw(t, "count")))
				e.Read(now, 1)
			},
			"": func(t *rapid.T) {
				if err := e.Check(); err != nil {
					t.Fatal(err)
				}
				out := e.Output()
				if out.Write != nil {
					writes = out.Write.Seq
				}
				if err := e.Check(); err != nil {
					t.Fatal(err)
				}
				for _, r := range replyTokens(out) {
					if answered[r] || r == 0 || r > to {
						t.Fatalf("request %d is answered twice, or was never asked", r)
					}
					answered[r] = true
				}
				for _, id := range committed {
					if id.Index >= purged.Index && !e.log.Has(id) {
						t.Fatalf("committed %v is not in the log any more", id)
					}
				}
				for index := committed[len(committed)-1].Index + 1; index <= e.Commit(); index++ {
					term, _ := e.log.Term(index)
					committed = append(committed, LogID{Term: term, Index: index})
				}
				if e.Applicable() > e.DurableIndex() || e.Applicable() > e.Commit() {
					t.Fatalf("applicable %d, durable %d, committed %d", e.Applicable(), e.DurableIndex(), e.Commit())
				}
			},
		})
	})
}

func replyTokens(out Output) []ReplyTo {
	var tokens []ReplyTo
	for _, r := range out.VoteReplies {
		tokens = append(tokens, r.To)
	}
	for _, r := range out.AppendReplies {
		tokens = append(tokens, r.To)
	}
	return tokens
}
