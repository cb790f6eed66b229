package kv_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/pebblelog"
)

// Under endless writes the log on disk stays bounded: three nodes take twenty times what they keep, and all along the directory of each
// one's log has at most three times the bytes of the entries that it keeps.
func TestTheLogOnDiskStaysBoundedUnderEndlessWrites(t *testing.T) {
	if testing.Short() {
		t.Skip("writes hundreds of megabytes")
	}
	const (
		value    = 8 << 10
		keep     = 500 // entries
		snapshot = 250 // entries between snapshots
		writes   = 20 * (keep + snapshot)
		writers  = 16
		// Space comes back a moment after the purge: what was kept until then counts too.
		every, moments = 50 * time.Millisecond, 60
	)
	c := startStoring(t)
	c.members = []raft.NodeID{"n1", "n2", "n3"}
	c.tune = func(config *node.Config) {
		log, err := pebblelog.OpenLog(config.Dir, pebblelog.Options{Logger: quiet, MemTableBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		config.Log, config.KeepEntries, config.SnapshotEntries = log, keep, snapshot
		config.ElectionTimeout = 5 * time.Second // a busy machine does not cost the leader its leadership
	}
	for _, id := range c.members {
		c.start(id)
	}
	ctx := within(t, 100*time.Second)
	var group sync.WaitGroup
	var done atomic.Int64
	for w := range writers {
		client := c.client() // of its own, so that each write is an entry of its own
		group.Go(func() {
			data := make([]byte, value)
			for i := range writes / writers {
				copy(data, fmt.Sprint(w, i))
				if _, err := client.Put(ctx, fmt.Sprintf("key-%d-%d", w, i%4), data); err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	// kept is how many bytes of entries a node's log has.
	kept := func(id raft.NodeID) int64 {
		s := c.nodes[id].Status()
		return int64(s.LastIndex-s.PurgedIndex) * value
	}
	worst, recent := map[raft.NodeID]float64{}, map[raft.NodeID][]int64{}
	measure := func() {
		for _, id := range c.members {
			disk := directoryBytes(t, filepath.Join(c.dir, string(id), "log"))
			recent[id] = append(recent[id], kept(id))
			recent[id] = recent[id][max(0, len(recent[id])-moments):]
			if most := slices.Max(recent[id]); most >= keep*value { // there is a whole retention's worth
				worst[id] = max(worst[id], float64(disk)/float64(most))
			}
		}
	}
	ended := make(chan struct{})
	go func() { group.Wait(); close(ended) }()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for writing := true; writing; {
		select {
		case <-ended:
			writing = false
		case <-tick.C:
			measure()
		}
	}
	measure()
	for _, id := range c.members {
		s := c.nodes[id].Status()
		t.Logf("%s: %d writes, log from %d to %d, at most %.2f bytes on disk for a byte kept", id, done.Load(), s.PurgedIndex, s.LastIndex, worst[id])
		if s.PurgedIndex == 0 || worst[id] == 0 || worst[id] > 3 {
			t.Errorf("%s: purged up to %d, at most %.2f times the log kept is on disk", id, s.PurgedIndex, worst[id])
		}
	}
}

func directoryBytes(t *testing.T, dir string) (total int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // compacted away meanwhile
		}
		if err == nil {
			total += info.Size()
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return total
}
