package failstop_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quorate/storage/failstop"
	"quorate/storage/storagetest"
)

var errBroken = errors.New("the disk is broken")

// open opens a guarded Pebble whose operations fail as asked.
func open(t *testing.T, fs vfs.FS, fault *failstop.Fault, fail func(errorfs.Op) error) *pebble.DB {
	t.Helper()
	options := &pebble.Options{
		FS:                          errorfs.Wrap(fs, errorfs.InjectorFunc(fail)),
		DisableAutomaticCompactions: true,
		FormatMajorVersion:          pebble.FormatWALSyncChunks,
	}
	db, err := failstop.Open("db", options, fault, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// Pebble tries a compaction that failed again for ever.
func TestACompactionThatFailsIsAFault(t *testing.T) {
	var armed atomic.Bool
	var fault failstop.Fault
	told := make(chan error, 10)
	fault.Notify(func(err error) { told <- err })
	db := open(t, vfs.NewMem(), &fault, func(op errorfs.Op) error {
		if armed.Load() && strings.HasSuffix(op.Path, ".sst") && op.Kind.ReadOrWrite() == errorfs.OpIsRead {
			return errBroken
		}
		return nil
	})
	for i := range 3 {
		for j := range 10 { // tables that overlap, or the compaction would only move them
			if err := db.Set(fmt.Appendf(nil, "key-%d", j), fmt.Appendf(nil, "value-%d", i), pebble.Sync); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if fault.Get() != nil {
		t.Fatal(fault.Get())
	}
	armed.Store(true)
	storagetest.Within(t, "the compaction", func() {
		if err := db.Compact(t.Context(), []byte("a"), []byte("z"), false); !errors.Is(err, errBroken) {
			t.Errorf("Compact returned %v", err)
		}
	})
	storagetest.Within(t, "the fault", func() {
		if err := <-told; !errors.Is(err, errBroken) {
			t.Errorf("told %v", err)
		}
	})
	if err := fault.Get(); !errors.Is(err, errBroken) {
		t.Errorf("the fault is %v", err)
	}
	storagetest.Within(t, "Close", func() { _ = db.Close() })
	if len(told) > 0 {
		t.Errorf("told again: %v", <-told)
	}
}

// Pebble reports a flush that has nothing to write as one that failed.
func TestAFlushOfNothingIsNoFault(t *testing.T) {
	var fault failstop.Fault
	db := open(t, vfs.NewMem(), &fault, func(errorfs.Op) error { return nil })
	if err := errors.Join(db.Flush(), db.Set([]byte("k"), nil, pebble.Sync), db.Delete([]byte("k"), pebble.Sync), db.Flush(), db.Close()); err != nil {
		t.Fatal(err)
	}
	if err := fault.Get(); err != nil {
		t.Error(err)
	}
}

func TestNotify(t *testing.T) {
	var fault failstop.Fault
	var told []error
	tell := func(err error) { told = append(told, err) }
	fault.Set(errBroken)
	fault.Notify(tell)
	fault.Set(errors.New("another"))
	if len(told) != 1 || told[0] != errBroken || fault.Get() != errBroken {
		t.Errorf("told %v, the fault is %v", told, fault.Get())
	}
}
