package storagetest

import (
	"errors"
	"math/rand/v2"
	"testing"

	"quorate/storage"
)

// Disk is one place where a log store lives: a directory, or what stands in for it.
type Disk interface {
	// Open opens the store that lives there, or makes an empty one. The suite closes a store before it opens the next one, but
	// after Crash.
	Open() (storage.LogStore, error)
}

// CrashDisk is a Disk whose power can be cut.
type CrashDisk interface {
	Disk
	// Crash cuts the power: of what was not synced, about so many percent survive, chosen at random. What Open opens next is what is
	// left now. The suite closes the store that was open afterwards, which must not change the disk any more.
	Crash(survivingPercent int, random *rand.Rand)
}

// Factory returns a new, empty disk. What it needs while the test runs it may bind to t.
type Factory func(t testing.TB) Disk

// RunLogStore runs the suite: each test on a disk of its own.
func RunLogStore(t *testing.T, newDisk Factory) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Disk)
	}{
		{"Empty", testEmpty},
		{"AppendAndRead", testAppendAndRead},
		{"ReadsAreBoundedByBytes", testMaxBytes},
		{"LargeEntries", testLargeEntries},
		{"RefusesWhatDoesNotFollow", testRefusals},
		{"Truncate", testTruncate},
		{"TruncateAndAppendInOneWrite", testTruncateAndAppend},
		{"Settings", testSettings},
		{"Purge", testPurge},
		{"PurgeRefusals", testPurgeRefusals},
		{"Vote", testVote},
		{"Identity", testIdentity},
		{"Genesis", testGenesis},
		{"EmptyWrite", testEmptyWrite},
		{"Closed", testClosed},
		{"ReadersBesideTheWriter", testReaders},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, newDisk(t)) })
	}
	t.Run("Reset", func(t *testing.T) { testReset(t, newDisk) })
	t.Run("Model", func(t *testing.T) { testModel(t, newDisk) })
	if _, ok := newDisk(t).(CrashDisk); !ok {
		return
	}
	t.Run("CrashKeepsWhatWasWaitedFor", func(t *testing.T) { testCrashWaited(t, newDisk(t).(CrashDisk)) })
	t.Run("CrashKeepsRecords", func(t *testing.T) { testCrashRecords(t, newDisk(t).(CrashDisk)) })
	t.Run("CrashAfterRestart", func(t *testing.T) { testCrashAfterRestart(t, newDisk(t).(CrashDisk)) })
	t.Run("CrashModel", func(t *testing.T) { testCrashModel(t, newDisk) })
}

// fataler is what *testing.T and *rapid.T have in common.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

func open(t fataler, disk Disk) storage.LogStore {
	t.Helper()
	store, err := disk.Open()
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return store
}

// opened opens a store that the test closes.
func opened(t *testing.T, disk Disk) storage.LogStore {
	t.Helper()
	store := open(t, disk)
	t.Cleanup(func() { _ = store.Close() })
	return store
}

func reopened(t fataler, disk Disk, store storage.LogStore) storage.LogStore {
	t.Helper()
	if err := store.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	return open(t, disk)
}

func write(t fataler, store storage.LogStore, w storage.Write) storage.Commit {
	t.Helper()
	commit, err := store.Write(w)
	if err != nil {
		t.Fatalf("write: %v", err)
	}
	return commit
}

func wait(t fataler, commit storage.Commit) {
	t.Helper()
	if err := commit.Wait(); err != nil {
		t.Fatalf("wait: %v", err)
	}
}

func writeAndWait(t fataler, store storage.LogStore, w storage.Write) {
	t.Helper()
	wait(t, write(t, store, w))
}

func wantError(t fataler, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}
