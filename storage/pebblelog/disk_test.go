package pebblelog_test

import (
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/pebblelog"
	"quorate/storage/storagetest"
)

// small are options under which little data is enough to fill the window, rotate write-ahead logs and flush tables.
func small(fs vfs.FS) pebblelog.Options {
	return pebblelog.Options{FS: fs, Logger: slog.New(slog.DiscardHandler), WindowBytes: 4 << 10, MemTableBytes: 256 << 10}
}

// powerDisk is a directory in memory whose power can be cut.
type powerDisk struct{ fs *storagetest.Crashable }

func newPowerDisk() *powerDisk { return &powerDisk{fs: storagetest.NewCrashable()} }

func (d *powerDisk) Open() (storage.LogStore, error) { return d.open() }

func (d *powerDisk) open() (*pebblelog.Log, error) { return pebblelog.OpenLog("data/log", small(d.fs)) }

func (d *powerDisk) Crash(survivingPercent int, random *rand.Rand) {
	d.fs = d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: survivingPercent, RNG: random})
}

// realDisk is a directory of the operating system.
type realDisk struct{ dir string }

func (d realDisk) Open() (storage.LogStore, error) {
	return pebblelog.OpenLog(d.dir, small(vfs.Default))
}

func TestConformance(t *testing.T) {
	storagetest.RunLogStore(t, func(testing.TB) storagetest.Disk { return newPowerDisk() })
}

func TestConformanceOnRealFiles(t *testing.T) {
	storagetest.RunLogStore(t, func(t testing.TB) storagetest.Disk { return realDisk{t.TempDir()} })
}

// entries returns sealed commands of one term, from index lo to hi inclusive, with n bytes of payload.
func entries(t testing.TB, term, lo, hi uint64, n int) []raft.Entry {
	t.Helper()
	var list []raft.Entry
	for index := lo; index <= hi; index++ {
		e := raft.Entry{ID: raft.LogID{Term: term, Index: index}, Kind: raft.EntryCommand, Data: make([]byte, n)}
		if err := storage.SealEntry(&e); err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

func mustOpen(t testing.TB, dir string, options pebblelog.Options) *pebblelog.Log {
	t.Helper()
	log, err := pebblelog.OpenLog(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return log
}

func mustWrite(t testing.TB, log storage.LogStore, w storage.Write) {
	t.Helper()
	commit, err := log.Write(w)
	if err != nil {
		t.Fatal(err)
	}
	if err := commit.Wait(); err != nil {
		t.Fatal(err)
	}
}
