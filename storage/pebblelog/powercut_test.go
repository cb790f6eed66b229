package pebblelog_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quorate/storage/pebblelog"
	"quorate/storage/storagetest"
)

// TestPowerCutBeforeEveryOperation runs a workload, from the making of the directory to its Close, once for each operation that changes
// the disk, and cuts the power right before it. What was not synced is gone, or some or all of it is there. What is left opens, holds what was
// acknowledged by then, and nothing that never was.
func TestPowerCutBeforeEveryOperation(t *testing.T) {
	w := newWorkload(t)
	operations, stride := 1, 1
	if testing.Short() {
		stride = 4
	}
	for n := 1; n <= operations; n += stride {
		for _, survives := range []int{0, 50 + 50*(n%2)} {
			operations = max(operations, testPowerCutBefore(t, w, n, survives))
		}
	}
	t.Logf("%d operations", operations)
	if operations < 100 {
		t.Errorf("a workload of %d operations shows too little", operations)
	}
}

// testPowerCutBefore returns how many operations the whole run took.
func testPowerCutBefore(t *testing.T, w *workload, n, survives int) (operations int) {
	t.Helper()
	var mu sync.Mutex // guards what follows
	var now, then progress
	var left *storagetest.Crashable
	var cut errorfs.Op
	var disk *storagetest.FailingDisk
	disk = storagetest.NewFailingDisk(func(i int, op errorfs.Op) error {
		if i == n {
			mu.Lock()
			defer mu.Unlock()
			then, cut = now, op
			left = disk.Memory.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: survives, RNG: rand.New(rand.NewPCG(uint64(n), 0))})
		}
		return nil
	})
	log, err := pebblelog.OpenLog("data/log", small(disk.FS()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.run(log, func(p progress) { mu.Lock(); now = p; mu.Unlock() }); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if left == nil {
		return disk.Operations() // the background did less this time
	}
	describe := fmt.Sprintf("power cut before operation %d (%s), of which %d%% survived", n, storagetest.DescribeOp(cut), survives)
	after, err := pebblelog.OpenLog("data/log", small(left))
	if err != nil {
		t.Errorf("%s: %v", describe, err)
		return disk.Operations()
	}
	if err := w.check(t, after, then); err != nil {
		t.Errorf("%s: %v", describe, err)
	}
	// It is as good as any other.
	end := after.Last()
	mustWrite(t, after, appendOf(t, end.Term+1, end.Index+1, end.Index+3))
	if err := errors.Join(after.Close()); err != nil {
		t.Errorf("%s: %v", describe, err)
	}
	return disk.Operations()
}

// TestADirectoryThatWasThereSurvivesAPowerCut: a process that was killed right after it had made the directory, or an operator who made
// it, leaves one that is not durable yet.
func TestADirectoryThatWasThereSurvivesAPowerCut(t *testing.T) {
	fs := storagetest.NewCrashable()
	if err := fs.MkdirAll("data/log", 0o755); err != nil {
		t.Fatal(err)
	}
	log := mustOpen(t, "data/log", small(fs))
	mustWrite(t, log, appendOf(t, 7, 1, 9))
	after := mustOpen(t, "data/log", small(fs.CrashClone(vfs.CrashCloneCfg{})))
	if after.Last() != log.Last() {
		t.Errorf("the log ends at %v after a power cut, %v before", after.Last(), log.Last())
	}
}
