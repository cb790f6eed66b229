package pebblelog_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quorate/storage/pebblelog"
	"quorate/storage/storagetest"
)

// TestPowerCutInARestart cuts the power before each operation of a restart that changes the disk, and of what is not synced any part may be there:
// of names in a directory, too, some and not the others. Nothing was written, so nothing may be missing.
func TestPowerCutInARestart(t *testing.T) {
	fs := vfs.NewCrashableMem()
	log := mustOpen(t, "data/log", small(fs))
	mustWrite(t, log, appendOf(t, 7, 1, 9))
	last := log.Last()
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	operations := 1
	for n := 1; n <= operations; n++ {
		for seed := range uint64(6) {
			var mu sync.Mutex // guards what follows
			var cut errorfs.Op
			var left *vfs.MemFS
			var disk *storagetest.FailingDisk
			disk = storagetest.NewFailingDisk(func(i int, op errorfs.Op) error {
				if i == n {
					mu.Lock()
					defer mu.Unlock()
					cut = op
					left = disk.Memory.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(uint64(n), seed))})
				}
				return nil
			})
			disk.Memory = fs.CrashClone(vfs.CrashCloneCfg{})
			restarted := mustOpen(t, "data/log", small(disk.FS()))
			operations = max(operations, disk.Operations())
			if err := restarted.Close(); err != nil {
				t.Fatal(err)
			}
			if left == nil {
				continue // the background did less this time
			}
			after, err := pebblelog.OpenLog("data/log", small(left))
			if err != nil {
				t.Errorf("power cut before operation %d (%s), seed %d: %v", n, storagetest.DescribeOp(cut), seed, err)
				continue
			}
			if after.Last() != last {
				t.Errorf("power cut before operation %d (%s), seed %d: the log ends at %v, and at %v before", n, storagetest.DescribeOp(cut), seed, after.Last(), last)
			}
			if err := after.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if operations < 10 {
		t.Errorf("a restart of %d operations shows too little", operations)
	}
}
