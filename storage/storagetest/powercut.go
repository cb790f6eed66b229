package storagetest

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// cutSeeds is how often the power is cut at each place: each time other parts of what is not synced are left.
const cutSeeds = 6

// PowerCuts does the same once for each operation with which it changes the disk, beginning with what is on it, and cuts the power right before that
// one. Of what is not synced any part is left, also of the names in a directory. The check is given what is left. An error of the check, or fewer
// operations than there should be at least, fails the test.
func PowerCuts(t *testing.T, begin *Crashable, least int, do func(disk vfs.FS), check func(left vfs.FS) error) {
	t.Helper()
	operations := 1
	for n := 1; n <= operations; n++ {
		for seed := range uint64(cutSeeds) {
			var mu sync.Mutex // guards what follows
			var cut errorfs.Op
			var left *Crashable
			var disk *FailingDisk
			disk = NewFailingDisk(func(i int, op errorfs.Op) error {
				if i == n {
					mu.Lock()
					defer mu.Unlock()
					cut = op
					left = disk.Memory.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(uint64(n), seed))})
				}
				return nil
			})
			disk.Memory = begin.CrashClone(vfs.CrashCloneCfg{})
			do(disk.FS())
			operations = max(operations, disk.Operations())
			mu.Lock()
			if left != nil { // else the background did less this time
				if err := check(left); err != nil {
					t.Errorf("power cut before operation %d (%s), seed %d: %v", n, DescribeOp(cut), seed, err)
				}
			}
			mu.Unlock()
		}
	}
	if operations < least {
		t.Errorf("%d operations show too little", operations)
	}
}
