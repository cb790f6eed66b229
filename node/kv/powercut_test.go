package kv

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/storagetest"
)

// TestPowerCutInTheFirstStart cuts the power before each operation of a first start that changes the disk. There was nothing yet: the next
// start begins anew.
func TestPowerCutInTheFirstStart(t *testing.T) {
	powerCuts(t, storagetest.NewCrashable(), func(disk vfs.FS) { closeStore(t, openStore(t, disk)) }, func(s *Store) error {
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
	restore := func(disk vfs.FS, upTo uint64, stream []byte) {
		s := openStore(t, disk)
		if err := s.Restore(t.Context(), node.SnapshotMeta{Last: raft.LogID{Term: 1, Index: upTo}}, newReader(stream)); err != nil {
			t.Fatal(err)
		}
		closeStore(t, s)
	}
	disk := storagetest.NewCrashable()
	restore(disk, 10, before)
	powerCuts(t, disk, func(disk vfs.FS) { restore(disk, 30, stream) }, func(s *Store) error {
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

func powerCuts(t *testing.T, begin *storagetest.Crashable, do func(vfs.FS), check func(*Store) error) {
	t.Helper()
	storagetest.PowerCuts(t, begin, 40, do, func(left vfs.FS) error {
		s, err := OpenStore("state", StoreOptions{FS: left, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		return errors.Join(check(s), s.Close())
	})
}

func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
