package storagetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"quorate/node/raft"
	"quorate/storage"
)

// testReaders reads from several goroutines while one writes, truncates and purges. Whatever is read must be a piece of a log that
// was there. The race detector finds the rest.
func testReaders(t *testing.T, disk Disk) {
	const readers, writes = 4, 600
	store := opened(t, disk)
	var group sync.WaitGroup
	var done atomic.Bool
	var reads atomic.Int64
	for seed := range uint64(readers) {
		group.Go(func() {
			random := rand.New(rand.NewPCG(seed, 0))
			for !done.Load() {
				if err := readSome(store, random); err != nil {
					t.Error(err)
					return
				}
				reads.Add(1)
			}
		})
	}
	random := rand.New(rand.NewPCG(99, 0))
	commits := make(chan storage.Commit, writes)
	group.Go(func() { // the sync waiter
		for commit := range commits {
			if err := commit.Wait(); err != nil {
				t.Error(err)
			}
		}
	})
	last, purged, term := uint64(0), uint64(0), uint64(1)
	terms := map[uint64]uint64{} // of the entries, by index
	for n := 0; n < writes || reads.Load() < 1000 && !t.Failed(); n++ {
		var w storage.Write
		if n%7 == 6 && last > purged+1 {
			w.TruncateFrom = last - random.Uint64N(min(20, last-purged-1))
			last = w.TruncateFrom - 1
			term++
		}
		for range 1 + random.IntN(20) {
			last++
			terms[last] = term
			w.Append = append(w.Append, entry(t, term, last, random.IntN(300)))
		}
		w.Vote = &raft.Vote{Term: term}
		if n < writes {
			commits <- write(t, store, w)
		} else {
			writeAndWait(t, store, w)
		}
		if n%50 == 49 {
			purged += random.Uint64N(last - purged)
			if err := store.Purge(raft.LogID{Term: terms[purged], Index: purged}); err != nil && purged > 0 {
				t.Errorf("purge: %v", err)
			}
		}
	}
	close(commits)
	done.Store(true)
	group.Wait()
}

// readSome reads a random piece of the log and says what is wrong with it.
func readSome(store storage.LogStore, random *rand.Rand) error {
	purged, last := store.Purged(), store.Last()
	if last.Index < purged.Index {
		// They are two calls, so a purge may have come between, but the last entry never goes below what was purged before.
		return fmt.Errorf("last %v, purged %v", last, purged)
	}
	_, _ = store.Vote(), last
	lo := purged.Index + random.Uint64N(last.Index-purged.Index+2)
	hi := lo + 1 + random.Uint64N(50)
	if term, err := store.Term(lo); err == nil && lo > 0 && term == 0 || err != nil && !moved(err) {
		return fmt.Errorf("term at %d: %d, %w", lo, term, err)
	}
	list, err := store.Entries(nil, lo, hi, 1+random.IntN(10000))
	if err != nil {
		if !moved(err) {
			return fmt.Errorf("entries %d to %d: %w", lo, hi, err)
		}
		return nil
	}
	if len(list) == 0 || len(list) > int(hi-lo) {
		return fmt.Errorf("entries %d to %d: %d entries", lo, hi, len(list))
	}
	for i, e := range list {
		if e.ID.Index != lo+uint64(i) || !genuine(e) || i > 0 && e.ID.Term < list[i-1].ID.Term {
			return fmt.Errorf("entries %d to %d: %s", lo, hi, ids(list))
		}
	}
	return nil
}

// moved reports whether an error only says that the log was purged or truncated meanwhile.
func moved(err error) bool {
	return errors.Is(err, storage.ErrPurged) || errors.Is(err, storage.ErrOutOfRange)
}
