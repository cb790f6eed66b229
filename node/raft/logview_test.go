package raft

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// modelLog is a log as a slice: the entry with index i, or before it the purge mark, is at i - purged index.
type modelLog []LogID

func (m modelLog) last() LogID { return m[len(m)-1] }

func (m modelLog) term(index uint64) (uint64, bool) {
	for _, id := range m {
		if id.Index == index {
			return id.Term, true
		}
	}
	return 0, false
}

// hint tries one index after the other, down to what is purged.
func (m modelLog) hint(prev LogID) LogID {
	for i := len(m) - 1; i > 0; i-- {
		if m[i].Index < prev.Index && m[i].Term <= prev.Term {
			return m[i]
		}
	}
	return m[0]
}

func TestLogViewEqualsASlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		purged := LogID{}
		if index := rapid.Uint64Range(0, 5).Draw(t, "purged"); index > 0 {
			purged = LogID{Term: rapid.Uint64Range(1, 3).Draw(t, "purged term"), Index: index}
		}
		model := modelLog{purged}
		for range rapid.IntRange(0, 20).Draw(t, "entries") {
			model = append(model, model.next(t))
		}
		lookUp := func(index uint64) (uint64, error) {
			if index <= purged.Index {
				return 0, errors.New("purged")
			}
			term, ok := model.term(index)
			if !ok {
				return 0, errors.New("out of range")
			}
			return term, nil
		}
		log, err := NewLogView(purged, model.last(), lookUp)
		if err != nil {
			t.Fatal(err)
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				id := model.next(t)
				model = append(model, id)
				log.Append(id)
			},
			"truncate": func(t *rapid.T) {
				from := rapid.Uint64Range(purged.Index+1, model.last().Index+3).Draw(t, "from")
				if n := from - purged.Index; n < uint64(len(model)) {
					model = model[:n:n]
				}
				log.Truncate(from)
			},
			"purge": func(t *rapid.T) {
				n := rapid.IntRange(0, len(model)-1).Draw(t, "entries to purge")
				model, purged = model[n:], model[n]
				log.Purge(purged)
				log.Purge(model[0]) // again: nothing
			},
			"hint": func(t *rapid.T) {
				prev := LogID{
					Term:  rapid.Uint64Range(1, 12).Draw(t, "term"),
					Index: rapid.Uint64Range(purged.Index+1, purged.Index+30).Draw(t, "index"),
				}
				if got, want := log.Hint(prev), model.hint(prev); got != want {
					t.Fatalf("hint for %v in %v: got %v, want %v", prev, model, got, want)
				}
			},
			"": func(t *rapid.T) {
				if err := log.check(); err != nil {
					t.Fatal(err)
				}
				if log.Last() != model.last() {
					t.Fatalf("last %v, want %v", log.Last(), model.last())
				}
				for index := uint64(0); index < model.last().Index+3; index++ {
					got, ok := log.Term(index)
					want, known := model.term(index)
					if got != want || ok != known {
						t.Fatalf("term of %d: got %d %v, want %d %v", index, got, ok, want, known)
					}
					if id := (LogID{Term: want, Index: index}); log.Has(id) != known || log.Has(LogID{Term: want + 1, Index: index}) {
						t.Fatalf("has %v: %v", id, log.Has(id))
					}
				}
				again, err := NewLogView(purged, model.last(), lookUp)
				if err != nil || again.Last() != log.Last() || len(again.runs) != len(log.runs) {
					t.Fatalf("restored %+v, %v; is %+v", again, err, log)
				}
			},
		})
	})
}

// next draws an id that may follow.
func (m modelLog) next(t *rapid.T) LogID {
	last := m.last()
	return LogID{Term: max(1, last.Term) + rapid.SampledFrom([]uint64{0, 0, 0, 1, 2}).Draw(t, "later"), Index: last.Index + 1}
}

func TestLogViewOfALogThatCannotBeRead(t *testing.T) {
	broken := errors.New("broken")
	for bad := uint64(1); bad <= 4; bad++ {
		_, err := NewLogView(LogID{}, LogID{Term: 2, Index: 4}, func(index uint64) (uint64, error) {
			if index == bad {
				return 0, broken
			}
			return 1, nil
		})
		// Not every index is looked at.
		if err != nil && !errors.Is(err, broken) {
			t.Errorf("at %d: %v", bad, err)
		}
		if bad == 1 && err == nil {
			t.Error("the first entry is not looked at")
		}
	}
}

func TestLogViewLooksUpFewTerms(t *testing.T) {
	const entries = 1 << 20
	looked := 0
	_, err := NewLogView(LogID{}, LogID{Term: 4, Index: entries}, func(index uint64) (uint64, error) {
		looked++
		return 1 + index/(entries/4+1), nil
	})
	if err != nil || looked > 200 {
		t.Errorf("%d look-ups for %d entries of 4 terms, %v", looked, entries, err)
	}
}
