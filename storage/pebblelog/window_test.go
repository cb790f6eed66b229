package pebblelog

import (
	"slices"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"quorate/node/raft"
)

// TestWindowEqualsTheLog compares a window with a plain list of the whole log, after any sequence of writes and purges. An entry that
// differs from the log's would be sent to followers and applied (a cache that kept what was truncated).
func TestWindowEqualsTheLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &window{maxBytes: rapid.IntRange(1, 5000).Draw(t, "max bytes")}
		var log []raft.Entry // all after purged
		var purged, last raft.LogID
		term := uint64(1)
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				end, truncated := last, rapid.Bool().Draw(t, "truncate") && len(log) > 0
				if truncated {
					n := rapid.IntRange(0, len(log)-1).Draw(t, "keep")
					log, end = slices.Clone(log[:n]), purged
					if n > 0 {
						end = log[n-1].ID
					}
					term++
				}
				var added []raft.Entry
				last = end
				for range rapid.IntRange(0, 100).Draw(t, "entries") {
					last = raft.LogID{Term: term, Index: last.Index + 1}
					added = append(added, raft.Entry{ID: last, Raw: make([]byte, rapid.SampledFrom([]int{1, 30, 900}).Draw(t, "bytes"))})
				}
				log = slices.Concat(log, added)
				w.change(truncated, end, added)
			},
			"purge": func(t *rapid.T) {
				if len(log) == 0 {
					t.Skip("nothing to purge")
				}
				n := rapid.IntRange(1, len(log)).Draw(t, "purge")
				purged, log = log[n-1].ID, log[n:]
				w.purge(purged)
			},
			"read": func(t *rapid.T) {
				lo := rapid.Uint64Range(0, last.Index+2).Draw(t, "lo")
				hi := lo + rapid.Uint64Range(1, 50).Draw(t, "n")
				maxBytes := rapid.IntRange(0, 3000).Draw(t, "max bytes")
				got, ok := w.read(nil, lo, hi, maxBytes)
				if !ok {
					return // from disk, then
				}
				var want []raft.Entry
				for _, e := range log[lo-purged.Index-1:] {
					if maxBytes -= len(e.Raw); e.ID.Index >= hi || maxBytes < 0 && len(want) > 0 {
						break
					}
					want = append(want, e)
				}
				same(t, got, want)
			},
			"": func(t *rapid.T) {
				if p, l := w.bounds(); p != purged || l != last {
					t.Fatalf("bounds %v to %v, want %v to %v", p, l, purged, last)
				}
				if w.count > len(log) {
					t.Fatalf("%d entries in the window, %d in the log", w.count, len(log))
				}
				got, _ := w.read(nil, last.Index+1-uint64(w.count), last.Index+1, 1<<30)
				same(t, got, log[len(log)-w.count:])
				bytes := 0
				for _, e := range log[len(log)-w.count:] {
					bytes += weight(&e)
					if term, ok := w.term(e.ID.Index); !ok || term != e.ID.Term {
						t.Fatalf("term of %v is %d, %v", e.ID, term, ok)
					}
				}
				if w.bytes != bytes || w.count > 1 && bytes > w.maxBytes {
					t.Fatalf("it counts %d bytes, has %d, may have %d", w.bytes, bytes, w.maxBytes)
				}
				for i := range w.ring { // what was dropped can be collected
					if in := (i-w.head)&(len(w.ring)-1) < w.count; !in && w.ring[i].Raw != nil {
						t.Fatalf("slot %d still holds %v", i, w.ring[i].ID)
					}
				}
			},
		})
	})
}

func same(t *rapid.T, got, want []raft.Entry) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(a, b raft.Entry) bool { return a.ID == b.ID && unsafe.SliceData(a.Raw) == unsafe.SliceData(b.Raw) }) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestWindowKeepsAsMuchAsItMay(t *testing.T) {
	w := &window{maxBytes: 100 * (1000 + int(unsafe.Sizeof(raft.Entry{})))}
	for index := uint64(1); index <= 1000; index++ {
		w.change(false, raft.LogID{}, []raft.Entry{{ID: raft.LogID{Term: 1, Index: index}, Raw: make([]byte, 1000)}})
	}
	if w.count != 100 || w.first() != 901 {
		t.Errorf("it holds %d entries from %d on", w.count, w.first())
	}
	if len(w.ring) > 256 {
		t.Errorf("the ring has %d slots", len(w.ring))
	}
	w.change(false, raft.LogID{}, []raft.Entry{{ID: raft.LogID{Term: 1, Index: 1001}, Raw: make([]byte, 1<<20)}})
	if got, _ := w.read(nil, 1001, 1002, 1); len(got) != 1 {
		t.Error("the newest entry is not kept when it is larger than all may be")
	}
}
