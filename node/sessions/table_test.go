package sessions

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"quorate/node/raft"
	"quorate/storage"
)

func command(index uint64, at time.Duration, session, sequence, low uint64) *raft.Entry {
	return &raft.Entry{ID: raft.LogID{Term: 1, Index: index}, Kind: raft.EntryCommand, Time: int64(at), Session: session, Sequence: sequence, LowWater: low}
}

func registration(index uint64, at, idle time.Duration) *raft.Entry {
	return &raft.Entry{ID: raft.LogID{Term: 1, Index: index}, Kind: raft.EntrySession, Time: int64(at), Data: Registration(idle)}
}

func wantVerdict(t *testing.T, s *Table, e *raft.Entry, want Verdict) Result {
	t.Helper()
	got, result := s.Judge(e)
	if got != want {
		t.Fatalf("entry %v of session %d, sequence %d: verdict %d, want %d", e.ID, e.Session, e.Sequence, got, want)
	}
	return result
}

func TestARetryGetsTheFirstResult(t *testing.T) {
	s := New()
	s.Register(registration(5, 0, time.Hour))
	for _, sequence := range []uint64{3, 1} { // in any order
		e := command(10+sequence, 0, 5, sequence, 0)
		wantVerdict(t, s, e, Apply)
		wantVerdict(t, s, command(20, 0, 5, sequence, 0), Wait)
		s.Store(e, fmt.Append(nil, sequence))
	}
	for _, sequence := range []uint64{1, 3} {
		if r := wantVerdict(t, s, command(30, 0, 5, sequence, 0), Known); string(r.Value) != fmt.Sprint(sequence) || r.ID.Index != 10+sequence {
			t.Errorf("sequence %d: %+v", sequence, r)
		}
	}
	// Below the low-water mark nothing is kept, and nothing is applied again.
	wantVerdict(t, s, command(31, 0, 5, 4, 3), Apply)
	wantVerdict(t, s, command(32, 0, 5, 1, 0), Refused)
	wantVerdict(t, s, command(33, 0, 5, 3, 0), Known)
}

func TestUnknownAndExpiredSessionsAreRefused(t *testing.T) {
	s := New()
	wantVerdict(t, s, command(1, 0, 99, 1, 0), Refused)
	s.Register(registration(2, 0, time.Minute))
	wantVerdict(t, s, command(3, time.Minute, 2, 1, 0), Apply)
	wantVerdict(t, s, command(4, 2*time.Minute, 2, 2, 0), Apply) // each use renews it
	wantVerdict(t, s, command(5, 3*time.Minute+1, 2, 3, 0), Refused)
	wantVerdict(t, s, command(6, 3*time.Minute+1, 2, 2, 0), Refused)
	wantVerdict(t, s, command(7, 0, 2, 0, 0), Refused)
}

func TestTheTableIsBounded(t *testing.T) {
	s := New()
	for i := range uint64(maxSessions + 5) {
		s.Register(registration(i+1, 0, time.Hour))
	}
	if len(s.byID) != maxSessions || s.used.Len() != maxSessions {
		t.Fatalf("%d sessions", len(s.byID))
	}
	wantVerdict(t, s, command(1e6, 0, 5, 1, 0), Refused)
	wantVerdict(t, s, command(1e6+1, 0, 6, 1, 0), Apply)
	for sequence := range uint64(MaxResults) {
		s.Judge(command(2e6+sequence, 0, 7, sequence+1, 0))
	}
	wantVerdict(t, s, command(3e6, 0, 7, MaxResults+1, 0), Refused)
}

func once(index uint64, at time.Duration, id string) *raft.Entry {
	return &raft.Entry{ID: raft.LogID{Term: 1, Index: index}, Kind: raft.EntryOnce, Time: int64(at), Data: JoinOnce(id, []byte("x"))}
}

func TestAMessageIDCountsOnceWithinItsWindow(t *testing.T) {
	s := New()
	e := once(1, 0, "a")
	wantVerdict(t, s, e, Apply)
	wantVerdict(t, s, once(2, 0, "a"), Wait)
	s.Store(e, []byte("first"))
	if r := wantVerdict(t, s, once(3, onceWindow, "a"), Known); string(r.Value) != "first" {
		t.Error(r)
	}
	wantVerdict(t, s, once(4, onceWindow+1, "a"), Apply)
	bad := once(5, 0, "a")
	bad.Data = []byte{200}
	wantVerdict(t, s, bad, Refused)
}

// Replicas cut batches differently, and restart at different places; their tables must be equal all the same.
func TestTablesDoNotDependOnBatchesAndRestarts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var log []*raft.Entry
		at := time.Duration(0)
		for i := range rapid.IntRange(1, 60).Draw(rt, "entries") {
			at += time.Duration(rapid.IntRange(0, 100).Draw(rt, "time"))
			index := uint64(i + 1)
			switch rapid.IntRange(0, 3).Draw(rt, "kind") {
			case 0:
				log = append(log, registration(index, at, 300))
			case 1:
				e := once(index, at, rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "id"))
				log = append(log, e)
			default:
				log = append(log, command(index, at, rapid.Uint64Range(1, 20).Draw(rt, "session"), rapid.Uint64Range(1, 4).Draw(rt, "sequence"), rapid.Uint64Range(0, 3).Draw(rt, "low")))
			}
		}
		run := func(cut func() bool, restart func() bool) map[string]string {
			s := New()
			stored := map[string]string{}
			var batch []*raft.Entry
			flush := func() {
				for _, e := range batch {
					s.Store(e, fmt.Append(nil, e.ID.Index))
				}
				batch = nil
				for _, r := range s.TakeRecords() {
					if len(r.Value) == 0 {
						delete(stored, r.Key)
					} else {
						stored[r.Key] = string(r.Value)
					}
				}
			}
			for _, e := range log {
				if e.Kind == raft.EntrySession {
					s.Register(e)
				} else {
					v, _ := s.Judge(e)
					if v == Wait {
						flush()
						v, _ = s.Judge(e)
					}
					if v == Apply {
						batch = append(batch, e)
					}
				}
				if cut() {
					flush()
					if restart() {
						var records []storage.SystemRecord
						for k, v := range stored {
							records = append(records, storage.SystemRecord{Key: k, Value: []byte(v)})
						}
						var err error
						if s, err = Load(records); err != nil {
							rt.Fatal(err)
						}
					}
				}
			}
			flush()
			all := map[string]string{}
			for _, r := range s.AllRecords() {
				all[r.Key] = string(r.Value)
			}
			if !reflect.DeepEqual(all, stored) {
				rt.Fatalf("stored %v, in memory %v", stored, all)
			}
			return stored
		}
		never := func() bool { return false }
		random := func() bool { return rapid.Bool().Draw(rt, "cut") }
		whole, cut := run(never, never), run(random, random)
		if !reflect.DeepEqual(whole, cut) {
			rt.Fatalf("in one batch %v\nin several %v", whole, cut)
		}
	})
}

func FuzzLoad(f *testing.F) {
	s := New()
	s.Register(registration(5, 0, time.Hour))
	e := command(6, 0, 5, 1, 0)
	s.Judge(e)
	s.Store(e, []byte("x"))
	o := once(7, 0, "a")
	s.Judge(o)
	s.Store(o, nil)
	for _, r := range s.AllRecords() {
		f.Add(r.Key, r.Value)
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		loaded, err := Load([]storage.SystemRecord{{Key: key, Value: value}})
		if err == nil {
			loaded.AllRecords()
		}
	})
}
