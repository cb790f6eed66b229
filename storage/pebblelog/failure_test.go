package pebblelog_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/pebblelog"
	"quorate/storage/storagetest"
)

func isLog(op errorfs.Op) bool { return strings.HasSuffix(op.Path, ".log") }

func TestFailedSyncIsTheEnd(t *testing.T) {
	broken := errors.New("the disk is broken")
	var armed atomic.Bool
	disk := storagetest.NewFailingDisk(func(_ int, op errorfs.Op) error {
		if armed.Load() && storagetest.IsSync(op) && isLog(op) && armed.Swap(false) { // once: a second sync would succeed
			return broken
		}
		return nil
	})
	options := small(disk.FS())
	fatal := make(chan error, 10)
	options.OnFatal = func(err error) { fatal <- err }
	log := mustOpen(t, "log", options)
	mustWrite(t, log, storage.Write{Append: entries(t, 1, 1, 3, 10)})
	armed.Store(true)

	commit, err := log.Write(storage.Write{Append: entries(t, 1, 4, 5, 10)})
	if err == nil { // else it was faster
		storagetest.Within(t, "Wait", func() { err = commit.Wait() })
	}
	if !errors.Is(err, broken) {
		t.Errorf("Wait, or Write, returned %v", err)
	}
	storagetest.Within(t, "OnFatal", func() { err = <-fatal })
	if !errors.Is(err, broken) {
		t.Errorf("OnFatal got %v", err)
	}
	for range 3 {
		if _, err := log.Write(storage.Write{Append: entries(t, 1, 6, 6, 10)}); !errors.Is(err, broken) {
			t.Errorf("a later write returned %v", err)
		}
	}
	if err := log.Purge(entries(t, 1, 2, 2, 10)[0].ID); !errors.Is(err, broken) {
		t.Errorf("a later purge returned %v", err)
	}
	if err := log.SetIdentity(storage.Identity{}); err == nil {
		t.Error("an identity was stored")
	}
	storagetest.Within(t, "Close", func() { err = log.Close() })
	if !errors.Is(err, broken) {
		t.Errorf("Close returned %v", err)
	}
	if _, after := disk.Failed(); len(after) > 0 {
		t.Errorf("reached the disk after the failure: %v", after)
	}
	if len(fatal) > 0 {
		t.Errorf("OnFatal was called again: %v", <-fatal)
	}
}

func TestFullDiskIsReported(t *testing.T) {
	var full atomic.Bool
	disk := storagetest.NewFailingDisk(func(_ int, op errorfs.Op) error {
		if full.Load() && (op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpCreate) {
			return syscall.ENOSPC
		}
		return nil
	})
	options := small(disk.FS())
	fatal := make(chan error, 1)
	options.OnFatal = func(err error) { fatal <- err }
	log := mustOpen(t, "log", options)
	full.Store(true)
	commit, err := log.Write(storage.Write{Append: entries(t, 1, 1, 3, 10)})
	if err == nil {
		storagetest.Within(t, "Wait", func() { err = commit.Wait() })
	}
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), ".log") {
		t.Errorf("got %v", err)
	}
	storagetest.Within(t, "OnFatal", func() { err = <-fatal })
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("OnFatal got %v", err)
	}
	storagetest.Within(t, "Close", func() { _ = log.Close() })
}

// TestEveryFailureOfTheDisk lets each operation that changes the disk fail once, one in each run, and starts again, with and without a loss of power. Whatever
// fails, nothing panics or hangs, no later write is taken, and what was acknowledged is there.
func TestEveryFailureOfTheDisk(t *testing.T) {
	w := newWorkload(t)
	undisturbed := storagetest.NewFailingDisk(func(int, errorfs.Op) error { return nil })
	log := mustOpen(t, "log", small(undisturbed.FS()))
	if _, err := w.run(log, nil); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d operations", undisturbed.Operations())
	for n := 1; n <= undisturbed.Operations(); n++ {
		testFailureAt(t, w, n)
	}
}

func testFailureAt(t *testing.T, w *workload, n int) {
	t.Helper()
	broken := errors.New("the disk is broken")
	disk := storagetest.NewFailingDisk(func(i int, _ errorfs.Op) error {
		if i == n {
			return broken
		}
		return nil
	})
	options := small(disk.FS())
	var fatal atomic.Int64
	options.OnFatal = func(error) { fatal.Add(1) }
	var p progress
	var err error
	storagetest.Within(t, fmt.Sprintf("the run in which operation %d fails", n), func() {
		var log *pebblelog.Log
		if log, err = pebblelog.OpenLog("log", options); err != nil {
			return
		}
		p, err = w.run(log, nil)
		if err != nil {
			if _, again := log.Write(storage.Write{}); !errors.Is(again, broken) {
				t.Errorf("operation %d: %v; then a write was taken, or refused with %v", n, err, again)
			}
		}
		err = errors.Join(err, log.Close())
	})
	failed, later := disk.Failed()
	if failed == nil {
		return // the background did less this time
	}
	describe := fmt.Sprintf("operation %d (%s) failed, so that %v", n, storagetest.DescribeOp(*failed), err)
	if err != nil && !errors.Is(err, broken) {
		t.Errorf("%s: not the disk's error", describe)
	}
	if calls := fatal.Load(); calls > 1 {
		t.Errorf("%s: OnFatal was called %d times", describe, calls)
	}
	if storagetest.IsSync(*failed) && isLog(*failed) {
		for _, op := range later {
			if op.Path == failed.Path {
				t.Errorf("%s: then came %s", describe, storagetest.DescribeOp(op))
			}
		}
	}
	check := func(fs vfs.FS) error {
		after, err := pebblelog.OpenLog("log", small(fs))
		if err != nil {
			return err
		}
		return errors.Join(w.check(t, after, p), after.Close())
	}
	if err := check(disk.Memory.CrashClone(vfs.CrashCloneCfg{})); err != nil {
		t.Errorf("%s; after a crash: %v", describe, err)
	}
	if err := check(disk.Memory); err != nil {
		t.Errorf("%s; after a restart: %v", describe, err)
	}
}

// TestEveryFailureOfTheDiskWhileOpening does so for a store that is opened after a crash, which writes what the write-ahead log holds into
// tables. Pebble by itself would try that again for ever.
func TestEveryFailureOfTheDiskWhileOpening(t *testing.T) {
	crashed := storagetest.NewCrashable()
	log := mustOpen(t, "log", small(crashed))
	mustWrite(t, log, storage.Write{Vote: &raft.Vote{Term: 1, For: "n1"}, Append: entries(t, 1, 1, 20, 1000)})
	want := stateOf(t, log)
	crashed = crashed.CrashClone(vfs.CrashCloneCfg{})
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	for n, more := 1, true; more; n++ {
		more = testFailureAtOpening(t, crashed, want, n)
	}
}

// testFailureAtOpening reports whether there was an n-th operation.
func testFailureAtOpening(t *testing.T, crashed *storagetest.Crashable, want string, n int) bool {
	t.Helper()
	broken := errors.New("the disk is broken")
	disk := storagetest.NewFailingDisk(func(i int, _ errorfs.Op) error {
		if i >= n { // it stays broken
			return broken
		}
		return nil
	})
	disk.Memory = crashed.CrashClone(vfs.CrashCloneCfg{})
	var err error
	storagetest.Within(t, fmt.Sprintf("the opening in which operation %d fails", n), func() {
		var log *pebblelog.Log
		if log, err = pebblelog.OpenLog("log", small(disk.FS())); err == nil {
			err = log.Close()
		}
	})
	failed, _ := disk.Failed()
	if failed == nil {
		return false
	}
	describe := fmt.Sprintf("operation %d (%s) failed, so that %v", n, storagetest.DescribeOp(*failed), err)
	if err != nil && !strings.Contains(err.Error(), broken.Error()) {
		t.Errorf("%s: not the disk's error", describe)
	}
	for _, fs := range []vfs.FS{disk.Memory.CrashClone(vfs.CrashCloneCfg{}), disk.Memory} {
		after, err := pebblelog.OpenLog("log", small(fs))
		if err != nil {
			t.Errorf("%s; after it: %v", describe, err)
			continue
		}
		if got := stateOf(t, after); got != want {
			t.Errorf("%s; after it the log holds %s", describe, got)
		}
		if err := after.Close(); err != nil {
			t.Errorf("%s; after it: %v", describe, err)
		}
	}
	return true
}
