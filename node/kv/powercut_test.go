package kv

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/storagetest"
)

// TestPowerCutInTheFirstStart cuts the power before each operation of a first start that changes the disk. There was nothing yet: the next
// start begins anew.
func TestPowerCutInTheFirstStart(t *testing.T) {
	powerCuts(t, vfs.NewCrashableMem(), func(t *testing.T, disk vfs.FS) { closeStore(t, openStore(t, disk)) }, func(s *Store) error {
		applied, err := s.Applied()
		if err == nil && applied.Last.Index > 0 {
			err = fmt.Errorf("the state goes up to %v", applied.Last)
		}
		return err
	})
}

// TestPowerCutInASecondRestore does so in a restore, when the state was restored before: the directory of the first start is gone.
func TestPowerCutInASecondRestore(t *testing.T) {
	source := openStore(t, vfs.NewMem())
	defer source.Close()
	fillStore(t, source, 1, 10)
	before := snapshotOf(t, source)
	oldState, _, err1 := source.Range(RangeOptions{})
	fillStore(t, source, 11, 30)
	stream := snapshotOf(t, source)
	newState, _, err2 := source.Range(RangeOptions{})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	restore := func(t *testing.T, disk vfs.FS, upTo uint64, stream []byte) {
		s := openStore(t, disk)
		if err := s.Restore(t.Context(), node.SnapshotMeta{Last: raft.LogID{Term: 1, Index: upTo}}, newReader(stream)); err != nil {
			t.Fatal(err)
		}
		closeStore(t, s)
	}
	disk := vfs.NewCrashableMem()
	restore(t, disk, 10, before)
	powerCuts(t, disk, func(t *testing.T, disk vfs.FS) { restore(t, disk, 30, stream) }, func(s *Store) error {
		got, _, err := s.Range(RangeOptions{})
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(got, oldState) && !reflect.DeepEqual(got, newState) {
			return errors.New("neither the old state nor the new")
		}
		return nil
	})
}

// powerCuts does the same once for each operation that changes the disk, beginning with what is on it, and cuts the power right before it. Of what is
// not synced any part is there, also of the names in a directory. Then it opens what is left.
func powerCuts(t *testing.T, begin *vfs.MemFS, do func(*testing.T, vfs.FS), check func(*Store) error) {
	operations := 1
	for n := 1; n <= operations; n++ {
		for seed := range uint64(4) {
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
			disk.Memory = begin.CrashClone(vfs.CrashCloneCfg{})
			do(t, disk.FS())
			operations = max(operations, disk.Operations())
			if left == nil {
				continue // the background did less this time
			}
			s, err := OpenStore("state", StoreOptions{FS: left, Logger: slog.New(slog.DiscardHandler)})
			if err == nil {
				err = errors.Join(check(s), s.Close())
			}
			if err != nil {
				t.Errorf("power cut before operation %d (%s), seed %d: %v", n, storagetest.DescribeOp(cut), seed, err)
			}
		}
	}
	if operations < 40 {
		t.Errorf("%d operations show too little", operations)
	}
}

func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
