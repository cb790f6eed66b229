package storagetest

import (
	"testing"

	"pgregory.net/rapid"

	"quorate/node/raft"
	"quorate/storage"
)

// drawWrite draws a write that follows on the model: any mix of vote, truncation and entries, also of none.
func drawWrite(t *rapid.T, m model) storage.Write {
	var w storage.Write
	if rapid.IntRange(0, 3).Draw(t, "with a vote") == 0 {
		w.Vote = &raft.Vote{
			Term: rapid.Uint64Range(m.vote.Term, m.vote.Term+3).Draw(t, "vote term"),
			For:  rapid.SampledFrom([]raft.NodeID{"", "n1", "n2"}).Draw(t, "vote for"),
		}
	}
	if rapid.IntRange(0, 2).Draw(t, "with a truncation") == 0 {
		w.TruncateFrom = rapid.Uint64Range(m.purged.Index+1, m.last().Index+2).Draw(t, "truncate from")
	}
	end := m.write(storage.Write{TruncateFrom: w.TruncateFrom}).last()
	for range rapid.IntRange(0, 6).Draw(t, "entries") {
		// Newer than the whole log: a term and an index name one entry only.
		term := max(end.Term, m.last().Term)
		if w.TruncateFrom != 0 && len(w.Append) == 0 {
			term++
		}
		term += rapid.Uint64Range(0, 1).Draw(t, "term step")
		n := rapid.SampledFrom([]int{0, 1, 100, 3000, -1}).Draw(t, "bytes, or a setting")
		var e raft.Entry
		if n < 0 {
			e = setting(t, max(term, 1), end.Index+1)
		} else {
			e = entry(t, max(term, 1), end.Index+1, n)
		}
		w.Append, end = append(w.Append, e), e.ID
	}
	return w
}

// drawPurge draws a log id in the model's log.
func drawPurge(t *rapid.T, m model) raft.LogID {
	return m.entries[rapid.IntRange(0, len(m.entries)-1).Draw(t, "purge up to")].ID
}

// testModel compares a store with the model after each of a random sequence of writes, truncations, purges and restarts.
func testModel(t *testing.T, newDisk Factory) {
	rapid.Check(t, func(rt *rapid.T) {
		disk := newDisk(t)
		store, m := open(rt, disk), model{}
		defer func() { _ = store.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"write": func(rt *rapid.T) {
				w := drawWrite(rt, m)
				m = m.write(w)
				writeAndWait(rt, store, w)
			},
			"append many": func(rt *rapid.T) {
				w := storage.Write{Append: entries(rt, max(1, m.last().Term), m.last().Index+1, m.last().Index+uint64(rapid.IntRange(1, 100).Draw(rt, "n")))}
				m = m.write(w)
				writeAndWait(rt, store, w)
			},
			"purge": func(rt *rapid.T) {
				if len(m.entries) == 0 {
					rt.Skip("nothing to purge")
				}
				upTo := drawPurge(rt, m)
				m = m.purge(upTo)
				if err := store.Purge(upTo); err != nil {
					rt.Fatalf("purge: %v", err)
				}
			},
			"restart": func(rt *rapid.T) { store = reopened(rt, disk, store) },
			"read": func(rt *rapid.T) {
				if len(m.entries) == 0 {
					rt.Skip("nothing to read")
				}
				lo := rapid.Uint64Range(m.purged.Index+1, m.last().Index).Draw(rt, "lo")
				hi := rapid.Uint64Range(lo+1, m.last().Index+3).Draw(rt, "hi")
				if d := m.differenceOfRead(store, lo, hi, rapid.IntRange(0, 10000).Draw(rt, "max bytes")); d != "" {
					rt.Fatalf("%s", d)
				}
			},
			"": func(rt *rapid.T) {
				if d := m.difference(store); d != "" {
					rt.Fatalf("%s", d)
				}
				_, err := store.Entries(nil, m.last().Index+1, m.last().Index+2, 1)
				wantError(rt, "the entry after the last", err, storage.ErrOutOfRange)
				if m.purged.Index > 0 {
					_, err = store.Entries(nil, m.purged.Index, m.last().Index+2, 1)
					wantError(rt, "the purged entry", err, storage.ErrPurged)
				}
			},
		})
	})
}
