package kv

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/storagetest"
)

var errBroken = errors.New("the disk is broken")

// applyPut applies one put whose value tells the index.
func applyPut(t testing.TB, s *Store, index uint64) error {
	id := raft.LogID{Term: 1, Index: index}
	data := encodeOps(t, []op{{put: true, key: fmt.Sprintf("k%d", index%5), value: fmt.Sprintf("%d %s", index, strings.Repeat("v", 100))}})
	_, err := s.Apply(node.Batch{Commands: []node.Command{{ID: id, Data: data}}, Last: id})
	return err
}

// fillingDisk is a disk in memory whose writes fail while it is full: those of files with in in their path.
func fillingDisk(in string) (fs vfs.FS, full *atomic.Bool) {
	full = &atomic.Bool{}
	return errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.Contains(op.Path, in) {
			return errBroken
		}
		return nil
	})), full
}

// wholeState is a snapshot of a state that goes up to an index.
func wholeState(t *testing.T, upTo uint64) []byte {
	t.Helper()
	s := openStore(t, vfs.NewMem())
	for index := uint64(1); index <= upTo; index++ {
		if err := applyPut(t, s, index); err != nil {
			t.Fatal(err)
		}
	}
	defer s.Close()
	return snapshotOf(t, s)
}

// Pebble tries a flush that failed again for ever, and waits for it when it is closed.
func TestAFlushThatFailsIsTheEndAndIsToldOnce(t *testing.T) {
	fs, full := fillingDisk("")
	var log bytes.Buffer
	s, err := OpenStore("state", StoreOptions{FS: fs, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	var told []error
	s.OnFailure(func(err error) { told = append(told, err) })
	if err := applyPut(t, s, 1); err != nil {
		t.Fatal(err)
	}
	before, err := s.Applied()
	if err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	if err := s.Sync(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("sync on a full disk: %v", err)
	}
	if err := applyPut(t, s, 2); !errors.Is(err, errBroken) {
		t.Errorf("apply after it: %v", err)
	}
	if applied, err := s.Applied(); !errors.Is(err, errBroken) {
		t.Errorf("%v is durable, instead of %v: %v", applied, before, err)
	}
	if err := s.Close(); !errors.Is(err, errBroken) {
		t.Errorf("close after it: %v", err)
	}
	if len(told) != 1 || !errors.Is(told[0], errBroken) {
		t.Errorf("told %v", told)
	}
	if said := log.String(); strings.Count(said, "\n") > 4 {
		t.Errorf("said:\n%s", said)
	}
}

// A failure of the disk while a snapshot is made ready is none of the present state, which is left as it is.
func TestADiskThatIsFullForASnapshotLeavesTheStateAlone(t *testing.T) {
	fs, full := fillingDisk("state-2/")
	whole := wholeState(t, 30)
	s := openStore(t, fs)
	s.OnFailure(func(err error) { t.Errorf("told %v", err) })
	if err := applyPut(t, s, 1); err != nil {
		t.Fatal(err)
	}
	meta := node.SnapshotMeta{Last: raft.LogID{Term: 1, Index: 30}}
	full.Store(true)
	if _, err := s.Stage(t.Context(), meta, newReader(whole)); !errors.Is(err, errBroken) {
		t.Fatalf("Stage on a full disk: %v", err)
	}
	full.Store(false)
	if err := errors.Join(applyPut(t, s, 2), s.Sync(t.Context()), s.Restore(t.Context(), meta, newReader(whole)), applyPut(t, s, 31), s.Close()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if _, err := s.Stage(t.Context(), meta, newReader(whole)); !errors.Is(err, errClosed) {
		t.Errorf("Stage into a closed store: %v", err)
	}
}

// TestAFailureOfARestoredStateIsTold shows that whoever is told of failures is so also after a snapshot took the state's place.
func TestAFailureOfARestoredStateIsTold(t *testing.T) {
	fs, full := fillingDisk("")
	whole := wholeState(t, 30)
	s := openStore(t, fs)
	var told []error
	s.OnFailure(func(err error) { told = append(told, err) })
	if err := errors.Join(s.Restore(t.Context(), node.SnapshotMeta{Last: raft.LogID{Term: 1, Index: 30}}, newReader(whole)), applyPut(t, s, 31)); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	if err := s.Sync(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("sync on a full disk: %v", err)
	}
	if err := s.Close(); !errors.Is(err, errBroken) || len(told) != 1 || !errors.Is(told[0], errBroken) {
		t.Errorf("told %v; Close returned %v", told, err)
	}
}

// TestEveryFailureOfTheDisk lets each operation that changes the disk fail once, one in each run, and starts again, with and without a loss of power. Whatever
// fails, nothing panics or hangs, and the state on the disk is one that there was, not older than what was said to be durable.
func TestEveryFailureOfTheDisk(t *testing.T) {
	t.Parallel()
	w := failureWorkload{whole: wholeState(t, failureSnapshotIndex), states: map[uint64][]Entry{}}
	undisturbed := storagetest.NewFailingDisk(func(int, errorfs.Op) error { return nil })
	if _, err := w.run(t, undisturbed.FS(), true); err != nil {
		t.Fatal(err)
	}
	total := undisturbed.Operations()
	t.Logf("%d operations", total)
	if total < 100 {
		t.Errorf("a workload of %d operations shows too little", total)
	}
	for n := 1; n <= total; n++ {
		w.testFailureAt(t, n)
	}
}

// failureWorkload applies, syncs, sweeps, compacts and installs a snapshot.
type failureWorkload struct {
	whole []byte
	// states at each index that may become durable.
	states map[uint64][]Entry
}

const failureSnapshotIndex = 200

// run returns how far the state is known to be durable. It stops at the first error, and closes the store.
func (w *failureWorkload) run(t *testing.T, fs vfs.FS, note bool) (durable uint64, err error) {
	s, err := OpenStore("state", StoreOptions{FS: fs, Logger: slog.New(slog.DiscardHandler), history: 10})
	if err != nil {
		return 0, err
	}
	s.tableBytes = 4 << 10
	var told atomic.Int64
	s.OnFailure(func(error) { told.Add(1) })
	defer func() {
		failed := s.db.failure()
		err = errors.Join(err, s.Close())
		if calls := told.Load(); calls > 1 || calls == 0 && failed != nil {
			t.Errorf("%v, of which was told %d times", failed, calls)
		}
	}()
	apply := func(from, to uint64) error {
		for index := from; index <= to; index++ {
			if err := applyPut(t, s, index); err != nil {
				return err
			}
			if !note {
				continue
			}
			if w.states[index], _, err = s.Range(RangeOptions{}); err != nil {
				return err
			}
		}
		return nil
	}
	sync := func() error {
		if err := s.Sync(t.Context()); err != nil {
			return err
		}
		applied, err := s.Applied()
		if err == nil {
			durable = applied.Last.Index
		}
		return err
	}
	for from := uint64(1); from <= 100; from += 20 {
		if err := errors.Join(apply(from, from+19), sync()); err != nil {
			return durable, err
		}
	}
	if err := s.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
		return durable, err
	}
	if err := apply(101, 110); err != nil {
		return durable, err
	}
	if err := s.Restore(t.Context(), node.SnapshotMeta{Last: raft.LogID{Term: 1, Index: failureSnapshotIndex}}, newReader(w.whole)); err != nil {
		return durable, err
	}
	durable = failureSnapshotIndex
	if note {
		if w.states[durable], _, err = s.Range(RangeOptions{}); err != nil {
			return durable, err
		}
	}
	return durable, errors.Join(apply(failureSnapshotIndex+1, failureSnapshotIndex+20), sync())
}

func (w *failureWorkload) testFailureAt(t *testing.T, n int) {
	t.Helper()
	disk := storagetest.NewFailingDisk(func(i int, _ errorfs.Op) error {
		if i == n {
			return errBroken
		}
		return nil
	})
	var durable uint64
	var err error
	storagetest.Within(t, fmt.Sprintf("the run in which operation %d fails", n), func() { durable, err = w.run(t, disk.FS(), false) })
	failed, _ := disk.Failed()
	if failed == nil {
		return // the background did less this time
	}
	describe := fmt.Sprintf("operation %d (%s) failed, so that %v", n, storagetest.DescribeOp(*failed), err)
	if err != nil && !strings.Contains(err.Error(), errBroken.Error()) {
		t.Errorf("%s: not the disk's error", describe)
	}
	if err := w.check(disk.Memory.CrashClone(vfs.CrashCloneCfg{}), durable); err != nil {
		t.Errorf("%s; after a crash: %v", describe, err)
	}
	if err := w.check(disk.Memory, durable); err != nil {
		t.Errorf("%s; after a restart: %v", describe, err)
	}
}

// check says that the state on a disk is one that there was, not older than what was durable.
func (w *failureWorkload) check(fs vfs.FS, durable uint64) error {
	s, err := OpenStore("state", StoreOptions{FS: fs, Logger: slog.New(slog.DiscardHandler), history: 10})
	if err != nil {
		return err
	}
	applied, err := s.Applied()
	got, _, failed := s.Range(RangeOptions{})
	if err := errors.Join(err, failed, s.Close()); err != nil {
		return err
	}
	switch at := applied.Last.Index; {
	case at < durable:
		return fmt.Errorf("the state goes up to %d, of which %d was durable", at, durable)
	case len(got) != len(w.states[at]) || len(got) > 0 && !reflect.DeepEqual(got, w.states[at]):
		return fmt.Errorf("the state at %d is %v, not %v", at, got, w.states[at])
	}
	return nil
}
