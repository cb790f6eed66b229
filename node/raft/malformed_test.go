package raft

import (
	"math"
	"testing"
)

// Malformed or absurd messages never change anything (rule 9 of the design).

func TestMalformedAppendsChangeNothing(t *testing.T) {
	id := func(term, index uint64) LogID { return LogID{Term: term, Index: index} }
	entry := func(term, index uint64) Entry { return Entry{ID: id(term, index), Kind: EntryCommand} }
	valid := AppendRequest{Term: 3, Leader: member(2), Prev: id(2, 3), Entries: []Entry{entry(3, 4)}}
	for name, spoil := range map[string]func(*AppendRequest){
		"term beyond all bounds":           func(r *AppendRequest) { r.Term = math.MaxUint64 },
		"no leader":                        func(r *AppendRequest) { r.Leader = Peer{} },
		"from ourselves":                   func(r *AppendRequest) { r.Leader = member(1) },
		"from another under our name":      func(r *AppendRequest) { r.Leader = Peer{ID: "n1", Incarnation: 99} },
		"previous term without an index":   func(r *AppendRequest) { r.Prev, r.Entries = id(2, 0), nil },
		"previous index without a term":    func(r *AppendRequest) { r.Prev = id(0, 3) },
		"previous term above the term":     func(r *AppendRequest) { r.Prev = id(4, 3) },
		"previous index beyond all bounds": func(r *AppendRequest) { r.Prev, r.Entries = id(2, math.MaxUint64), nil },
		"gap after the previous id":        func(r *AppendRequest) { r.Entries[0].ID.Index = 5 },
		"entry in place of the previous":   func(r *AppendRequest) { r.Entries[0].ID.Index = 3 },
		"entry of a later term":            func(r *AppendRequest) { r.Entries[0].ID.Term = 4 },
		"entry of a term before":           func(r *AppendRequest) { r.Entries[0].ID.Term = 1 },
		"entry without a term":             func(r *AppendRequest) { r.Prev, r.Entries = LogID{}, []Entry{entry(0, 1)} },
		"gap between entries":              func(r *AppendRequest) { r.Entries = append(r.Entries, entry(3, 6)) },
		"terms go back":                    func(r *AppendRequest) { r.Entries = append(r.Entries, entry(2, 5)) },
		"membership without one":           func(r *AppendRequest) { r.Entries[0].Kind = EntryMembership },
		"membership without voters": func(r *AppendRequest) {
			r.Entries[0].Kind, r.Entries[0].Membership = EntryMembership, &Membership{}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, voters(3), terms{1, 1, 2, 2})
			req := valid
			req.Entries = []Entry{valid.Entries[0]}
			spoil(&req)
			out := b.request(&req)
			if resp := b.answer(); resp.Status != AppendRefused || resp.Term != 2 {
				t.Errorf("answer %+v", resp)
			}
			if out.Write != nil || b.e.LastLogID() != id(2, 4) || b.e.Vote() != (Vote{Term: 2}) || b.e.Leader() != (Peer{}) {
				t.Errorf("it changed something: %+v, %v, %v, leader %v", out.Write, b.e.LastLogID(), b.e.Vote(), b.e.Leader())
			}
			if len(out.Violations) != 1 {
				t.Errorf("violations %q", out.Violations)
			}
		})
	}
	b := newBench(t, voters(3), terms{1, 1, 2, 2})
	b.request(&valid)
	if b.answer().Matched != id(3, 4) {
		t.Error("the request is refused even when nothing is wrong with it")
	}
}

func TestMalformedVoteRequestsAreRefused(t *testing.T) {
	for name, req := range map[string]VoteRequest{
		"term beyond all bounds": {Term: math.MaxUint64, Candidate: member(2), Last: LogID{Term: 9, Index: 9}},
		"no candidate":           {Term: 5, Last: LogID{Term: 4, Index: 9}},
		"our own name":           {Term: 5, Candidate: Peer{ID: "n1", Incarnation: 99}, Last: LogID{Term: 4, Index: 9}},
		"log newer than term":    {Term: 5, Candidate: member(2), Last: LogID{Term: 6, Index: 9}},
		"index beyond bounds":    {Term: 5, Candidate: member(2), Last: LogID{Term: 4, Index: math.MaxUint64}},
	} {
		for _, pre := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				b := newBench(t, voters(3), terms{1, 2})
				req.Pre = pre
				b.e.VoteRequested(b.now, &req, 1)
				out := b.flush()
				if b.granted() || b.e.Vote() != (Vote{Term: 2}) || len(out.Violations) != 1 {
					t.Errorf("%+v: %v, violations %q", out.VoteReplies, b.e.Vote(), out.Violations)
				}
			})
		}
	}
}

func TestAbsurdTermsInAnswersAreIgnored(t *testing.T) {
	b := newBench(t, voters(3), terms{1, 2})
	b.stand()
	b.e.VoteAnswer(b.now, &VoteResponse{From: member(2), Term: math.MaxUint64, Pre: true})
	b.flush()
	b.wantRole(PreCandidate)
	b.grant(2)
	b.grant(2)
	b.wantRole(Leader)
	b.e.Progress(b.now, Progress{Peer: member(2), Worker: b.worker(2), SeenTerm: math.MaxUint64})
	b.flush()
	b.wantRole(Leader)
}

func TestSecondLeaderInATermIsRefused(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.append(2, 2, LogID{Term: 1, Index: 1}, 0, 2)
	out := b.append(3, 2, LogID{Term: 1, Index: 1}, 0, 2, 2)
	if resp := b.answer(); resp.Status != AppendRefused || len(out.Violations) != 1 {
		t.Errorf("answer %+v, violations %q", resp, out.Violations)
	}
	if b.e.Leader() != member(2) || b.e.LastLogID().Index != 2 {
		t.Errorf("it follows %v, log up to %v", b.e.Leader(), b.e.LastLogID())
	}
}

func TestCommittedEntriesAreNeverTruncated(t *testing.T) {
	b := newBench(t, voters(3), terms{1, 1, 1})
	b.append(2, 1, LogID{Term: 1, Index: 3}, 3)
	b.wantCommit(3)
	out := b.append(3, 2, LogID{Term: 1, Index: 1}, 0, 2, 2)
	// Not a conflict: the leader would try the same again and again.
	if resp := b.answer(); resp.Status != AppendRefused || len(out.Violations) != 1 {
		t.Errorf("answer %+v, violations %q", resp, out.Violations)
	}
	if b.e.LastLogID() != (LogID{Term: 1, Index: 3}) {
		t.Errorf("log up to %v", b.e.LastLogID())
	}
}

func TestAppendThatContradictsThePurgeMark(t *testing.T) {
	purged, last := LogID{Term: 2, Index: 5}, LogID{Term: 2, Index: 7}
	log, err := NewLogView(purged, last, func(uint64) (uint64, error) { return 2, nil })
	if err != nil {
		t.Fatal(err)
	}
	restored := Restored{Vote: Vote{Term: 2}, Log: log, Committed: purged, Memberships: []MembershipAt{{Membership: voters(3)}}}
	for name, prev := range map[string]LogID{"as previous": {Term: 1, Index: 5}, "as entry": {Term: 1, Index: 4}} {
		t.Run(name, func(t *testing.T) {
			b := restore(t, restored)
			out := b.append(2, 3, prev, 0, 3, 3)
			if resp := b.answer(); resp.Status != AppendRefused || len(out.Violations) != 1 || b.e.LastLogID() != last {
				t.Errorf("answer %+v, violations %q, log up to %v", resp, out.Violations, b.e.LastLogID())
			}
		})
	}
	t.Run("entries around it", func(t *testing.T) {
		b := restore(t, restored)
		b.append(2, 3, LogID{Term: 1, Index: 3}, 0, 1, 2, 2, 2, 3)
		if resp := b.answer(); resp.Status != AppendMatched || resp.Matched != (LogID{Term: 3, Index: 8}) {
			t.Errorf("answer %+v", resp)
		}
	})
	t.Run("all below it", func(t *testing.T) { // an old one, repeated: no conflict, and nothing deleted
		b := restore(t, restored)
		b.append(2, 3, LogID{Term: 1, Index: 1}, 0, 1, 1)
		if resp := b.answer(); resp.Status != AppendMatched || resp.Matched != purged || b.e.LastLogID() != last {
			t.Errorf("answer %+v, log up to %v", resp, b.e.LastLogID())
		}
	})
}

func TestAppendWithATermOlderThanAllOfTheLog(t *testing.T) {
	purged := LogID{Term: 5, Index: 5}
	log, err := NewLogView(purged, purged, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := restore(t, Restored{Vote: Vote{Term: 5}, Log: log, Committed: purged, Memberships: []MembershipAt{{Membership: voters(3)}}})
	b.append(2, 6, LogID{Term: 1, Index: 9}, 0)
	if resp := b.answer(); resp.Status != AppendConflict || resp.Hint != purged {
		t.Errorf("answer %+v", resp)
	}
}
