package kv

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"quorate/storage"
	"quorate/storage/failstop"
)

// stateDB is the Pebble of one state directory: the present one, or one that a snapshot is being put into. Its disk stops at the first
// failure (failstop.Open), so whoever relies on what it holds looks at failure first.
type stateDB struct {
	*pebble.DB
	name   string
	fault  failstop.Fault
	broken chan struct{} // closed when the fault is set
	// replaced: another state stands in its place, and its failure is no matter any more.
	replaced atomic.Bool
	// syncs are those of Store.Sync that are under way. They hold no lock, and Close waits for them.
	syncs sync.WaitGroup
}

// Close closes it when nobody flushes it any more. No Sync may begin after that.
func (db *stateDB) Close() error {
	db.syncs.Wait()
	return db.DB.Close()
}

// failure returns why the state can no longer be trusted, or nil.
func (db *stateDB) failure() error {
	if err := db.fault.Get(); err != nil {
		return fmt.Errorf("the state has failed: %w", err)
	}
	return nil
}

// tell has f called with the failure, once, when there is one, unless the state is replaced by then.
func (db *stateDB) tell(f func(error)) {
	db.fault.Notify(func(error) {
		if !db.replaced.Load() {
			f(db.failure())
		}
	})
}

// flush makes what Pebble has in memory durable. It returns too when that fails: Pebble itself would try again for ever, without a pause.
func (db *stateDB) flush() error {
	if err := db.failure(); err != nil {
		return err
	}
	flushed, err := db.AsyncFlush()
	if err != nil {
		return fmt.Errorf("flush the state: %w", err)
	}
	select {
	case <-flushed:
	case <-db.broken:
	}
	return db.failure()
}

// path of a state directory.
func (s *Store) path(name string) string { return s.options.FS.PathJoin(s.dir, name) }

func (s *Store) openPebble(name string) (*stateDB, error) {
	dir := s.path(name)
	if err := storage.MakeDir(s.options.FS, dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := pebble.LockDirectory(dir, s.options.FS) // Pebble's own error does not tell a lock from damage
	if err == nil {
		err = lock.Close()
	}
	if err != nil {
		return nil, lockError(err)
	}
	db := &stateDB{name: name, broken: make(chan struct{})}
	db.fault.Notify(func(error) { close(db.broken) })
	db.DB, err = failstop.Open(dir, s.pebbleOptions(), &db.fault, s.options.Logger)
	if fault := db.fault.Get(); fault != nil {
		return nil, fault
	}
	if err != nil {
		return nil, fmt.Errorf("%w (if its files are damaged: restore state and log from one backup, or replace this node by one with an empty directory and a new name)", err)
	}
	return db, nil
}

// lockError says what to do about a directory that cannot be locked.
func lockError(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("lock it: %w: the user who runs this process must own the directory", err)
	}
	return fmt.Errorf("it is in use, by another process or this one (%w): stop that one first, or give this node another directory", err)
}

func (s *Store) pebbleOptions() *pebble.Options {
	options := &pebble.Options{
		FS:                      s.options.FS,
		FormatMajorVersion:      pebble.FormatWALSyncChunks,
		DisableWAL:              true,
		MemTableSize:            64 << 20,
		L0CompactionThreshold:   4,
		L0StopWritesThreshold:   32,
		LBaseMaxBytes:           256 << 20,
		BlockPropertyCollectors: []func() pebble.BlockPropertyCollector{newRevisionCollector},
	}
	options.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	return options
}

// checkFormat refuses a format that this version does not know. A state of format 1 has its whole history, and one of format 2 was never told
// how much to keep: they become states of the present format.
func checkFormat(db *pebble.DB) error {
	value, closer, err := db.Get(formatKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return fmt.Errorf("%w: it has no format number", errCorrupt)
	}
	if err != nil {
		return err
	}
	defer closer.Close()
	if string(value) == "1" || string(value) == "2" {
		return db.Set(formatKey, strconv.AppendInt(nil, formatNumber, 10), pebble.NoSync)
	}
	if string(value) != strconv.Itoa(formatNumber) {
		return fmt.Errorf("the state has format %q, this version knows format %d: start the version of Quorate that wrote it, or a newer one", value, formatNumber)
	}
	return nil
}
