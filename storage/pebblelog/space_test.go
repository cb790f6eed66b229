package pebblelog_test

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
	"quorate/storage"
)

// TestPurgedSpaceComesBack writes and purges twenty times what is kept. The directory must not grow with what was written: a log in an
// LSM store can keep many times its size after purges. It may grow for the moment that a compaction takes.
func TestPurgedSpaceComesBack(t *testing.T) {
	const (
		payload  = 1000
		batch    = 100
		kept     = 4000 // entries: 4 MB
		memTable = 1 << 20
		// Write-ahead logs that are in use, or kept to be used again, do not depend on how much is live.
		logs = 4 * memTable
	)
	rounds := uint64(20)
	if testing.Short() {
		rounds = 6
	}
	fs := vfs.NewMem()
	options := small(fs)
	options.MemTableBytes = memTable
	log := mustOpen(t, "log", options)
	last, most := uint64(0), int64(0)
	for last < kept*rounds {
		mustWrite(t, log, storage.Write{Append: entries(t, 1, last+1, last+batch, payload)})
		last += batch
		if last <= kept || last%(kept/4) != 0 {
			continue
		}
		if err := log.Purge(raft.LogID{Term: 1, Index: last - kept}); err != nil {
			t.Fatal(err)
		}
		most = max(most, diskBytes(t, fs))
		waitFor(t, "the space of what was purged", func() bool { return diskBytes(t, fs) <= 3*kept*payload+logs })
	}
	t.Logf("live %d KB, written %d KB, the directory had at most %d KB and has %d KB now",
		kept*payload>>10, int64(last)*payload>>10, most>>10, diskBytes(t, fs)>>10)
}

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

func diskBytes(t *testing.T, fs vfs.FS) int64 {
	t.Helper()
	names, err := fs.List("log")
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, name := range names {
		if info, err := fs.Stat("log/" + name); err == nil { // else it was deleted meanwhile
			sum += info.Size()
		}
	}
	return sum
}
