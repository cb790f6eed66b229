package pebblelog_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quorate/storage"
	"quorate/storage/pebblelog"
)

// within fails the test if op does not return in time: what would hang must not hang the test.
func within(t testing.TB, what string, op func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		op()
	}()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		t.Fatalf("%s does not return", what)
	}
}

// failing is a file system of which operations that change it fail, as fail decides by their number and kind.
type failing struct {
	memory *vfs.MemFS
	fail   func(n int, op errorfs.Op) error

	mu     sync.Mutex // guards what follows
	count  int
	failed *errorfs.Op // the first that failed
	after  []errorfs.Op
}

func newFailing(fail func(n int, op errorfs.Op) error) *failing {
	return &failing{memory: vfs.NewCrashableMem(), fail: fail}
}

func (f *failing) fs() vfs.FS { return reusingFS{FS: errorfs.Wrap(f.memory, f), failing: f} }

// String names the injector.
func (f *failing) String() string { return "failing" }

// MaybeError is asked before each operation.
func (f *failing) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead || op.Kind == errorfs.OpFileClose {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if f.failed != nil {
		f.after = append(f.after, op)
	}
	err := f.fail(f.count, op)
	if err != nil && f.failed == nil {
		f.failed = &op
	}
	return err
}

// reusingFS makes files that are used again fail too. Write-ahead logs are of that kind, and errorfs passes them on as they are.
type reusingFS struct {
	vfs.FS
	failing *failing
}

func (f reusingFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.ReuseForWrite(oldname, newname, category)
	if err != nil {
		return nil, err
	}
	return errorfs.WrapFile(file, named{f.failing, newname}), nil
}

// named adds the name of the file, which errorfs.WrapFile does not know.
type named struct {
	*failing
	path string
}

func (n named) MaybeError(op errorfs.Op) error {
	op.Path = n.path
	return n.failing.MaybeError(op)
}

// syncs reports whether an operation makes a file durable.
func syncs(op errorfs.Op) bool {
	return op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
}

var kindNames = map[errorfs.OpKind]string{
	errorfs.OpCreate: "create", errorfs.OpLink: "link", errorfs.OpRemove: "remove", errorfs.OpRemoveAll: "remove all",
	errorfs.OpRename: "rename", errorfs.OpReuseForWrite: "reuse", errorfs.OpMkdirAll: "mkdir", errorfs.OpLock: "lock",
	errorfs.OpFilePreallocate: "preallocate", errorfs.OpFileWrite: "write", errorfs.OpFileWriteAt: "write at",
	errorfs.OpFileSync: "sync", errorfs.OpFileSyncData: "sync data", errorfs.OpFileSyncTo: "sync to",
}

func isLog(op errorfs.Op) bool { return strings.HasSuffix(op.Path, ".log") }

func TestFailedSyncIsTheEnd(t *testing.T) {
	broken := errors.New("the disk is broken")
	var armed atomic.Bool
	disk := newFailing(func(_ int, op errorfs.Op) error {
		if armed.Load() && syncs(op) && isLog(op) && armed.Swap(false) { // once: a second sync would succeed
			return broken
		}
		return nil
	})
	options := small(disk.fs())
	fatal := make(chan error, 10)
	options.OnFatal = func(err error) { fatal <- err }
	log := mustOpen(t, "log", options)
	mustWrite(t, log, storage.Write{Append: entries(t, 1, 1, 3, 10)})
	armed.Store(true)

	commit, err := log.Write(storage.Write{Append: entries(t, 1, 4, 5, 10)})
	if err == nil { // else it was faster
		within(t, "Wait", func() { err = commit.Wait() })
	}
	if !errors.Is(err, broken) {
		t.Errorf("Wait, or Write, returned %v", err)
	}
	within(t, "OnFatal", func() { err = <-fatal })
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
	within(t, "Close", func() { err = log.Close() })
	if !errors.Is(err, broken) {
		t.Errorf("Close returned %v", err)
	}
	if len(disk.after) > 0 {
		t.Errorf("reached the disk after the failure: %v", disk.after)
	}
	if len(fatal) > 0 {
		t.Errorf("OnFatal was called again: %v", <-fatal)
	}
}

func TestFullDiskIsReported(t *testing.T) {
	var full atomic.Bool
	disk := newFailing(func(_ int, op errorfs.Op) error {
		if full.Load() && (op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpCreate) {
			return syscall.ENOSPC
		}
		return nil
	})
	options := small(disk.fs())
	fatal := make(chan error, 1)
	options.OnFatal = func(err error) { fatal <- err }
	log := mustOpen(t, "log", options)
	full.Store(true)
	commit, err := log.Write(storage.Write{Append: entries(t, 1, 1, 3, 10)})
	if err == nil {
		within(t, "Wait", func() { err = commit.Wait() })
	}
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), ".log") {
		t.Errorf("got %v", err)
	}
	within(t, "OnFatal", func() { err = <-fatal })
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("OnFatal got %v", err)
	}
	within(t, "Close", func() { _ = log.Close() })
}

// TestEveryFailureOfTheDisk lets each operation that changes the disk fail once, one in each run, and cuts the power afterwards. Whatever
// fails, nothing panics or hangs, no later write is taken, and what was acknowledged is there.
func TestEveryFailureOfTheDisk(t *testing.T) {
	w := newWorkload(t)
	undisturbed := newFailing(func(int, errorfs.Op) error { return nil })
	log := mustOpen(t, "log", small(undisturbed.fs()))
	if _, err := w.run(log, nil); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d operations", undisturbed.count)
	for n := 1; n <= undisturbed.count; n++ {
		testFailureAt(t, w, n)
	}
}

func testFailureAt(t *testing.T, w *workload, n int) {
	t.Helper()
	broken := errors.New("the disk is broken")
	disk := newFailing(func(i int, _ errorfs.Op) error {
		if i == n {
			return broken
		}
		return nil
	})
	options := small(disk.fs())
	var fatal atomic.Int64
	options.OnFatal = func(error) { fatal.Add(1) }
	var p progress
	var err error
	within(t, fmt.Sprintf("the run in which operation %d fails", n), func() {
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
	if disk.failed == nil {
		return // the background did less this time
	}
	describe := fmt.Sprintf("operation %d (%v of %s) failed, so that %v", n, kindNames[disk.failed.Kind], disk.failed.Path, err)
	if err != nil && !errors.Is(err, broken) {
		t.Errorf("%s: not the disk's error", describe)
	}
	if calls := fatal.Load(); calls > 1 {
		t.Errorf("%s: OnFatal was called %d times", describe, calls)
	}
	if syncs(*disk.failed) && isLog(*disk.failed) {
		for _, op := range disk.after {
			if op.Path == disk.failed.Path {
				t.Errorf("%s: then came %v of it", describe, kindNames[op.Kind])
			}
		}
	}
	after, err := pebblelog.OpenLog("log", small(disk.memory.CrashClone(vfs.CrashCloneCfg{})))
	if err != nil {
		t.Errorf("%s; after a crash: %v", describe, err)
		return
	}
	if err := errors.Join(w.check(t, after, p), after.Close()); err != nil {
		t.Errorf("%s; after a crash: %v", describe, err)
	}
}
