package pebblelog

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/storage"
	"quorate/storage/failstop"
)

// Options change how a DB is opened. The zero value serves.
type Options struct {
	// FS is the file system. Default: the operating system's.
	FS vfs.FS
	// Logger gets Pebble's own log lines. Default: slog.Default().
	Logger *slog.Logger
	// OnFatal is called, once, when the store can no longer be trusted: a failed write or fsync, a full disk, a damaged file. The
	// program lives on; the store refuses every later write, and nothing more reaches the disk. It is called from any
	// goroutine, in the middle of the store's work: it must not block, and must not call the store.
	OnFatal func(error)
	// OnSync, if not nil, is told how long each fsync of the write-ahead log took. It is called by the store's own goroutines, and must not block.
	OnSync func(took time.Duration)
	// WindowBytes is how much memory a log's newest entries may take, so that they need not be read from disk. Default: 16 MiB.
	WindowBytes int
	// MemTableBytes is how much is written before Pebble turns it into a table, and so the size of its write-ahead log files.
	// Default: 16 MiB.
	MemTableBytes int
}

func (o *Options) setDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.WindowBytes <= 0 {
		o.WindowBytes = 16 << 20
	}
	if o.MemTableBytes <= 0 {
		o.MemTableBytes = 16 << 20
	}
}

// DB is one Pebble with the logs of one or more groups. Its methods are safe from several goroutines.
type DB struct {
	pebble  *pebble.DB
	lock    *pebble.Lock
	options Options
	fault   failstop.Fault
	durable durableMark

	mu     sync.RWMutex    // held for reading while Pebble is in use, so that Close waits; guards what follows
	closed bool            // Pebble panics when it is used after its Close
	groups map[string]*Log // those that are open
}

// Open opens the directory, or makes it. Errors say what is wrong with the directory and what to do.
func Open(dir string, options Options) (*DB, error) {
	options.setDefaults()
	db := &DB{options: options, groups: map[string]*Log{}}
	lock, fresh, err := claimDirectory(dir, options.FS)
	if err != nil {
		return nil, err
	}
	db.lock = lock
	if err := db.open(dir, fresh); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if options.OnFatal != nil {
		db.fault.Notify(options.OnFatal)
	}
	return db, nil
}

func (db *DB) open(dir string, fresh bool) error {
	options := db.pebbleOptions()
	if !fresh {
		if err := scanManifest(dir, db.options.FS); err != nil {
			return unreadable(dir, err)
		}
		if err := db.refuseForeign(dir, options); err != nil {
			return err
		}
	}
	if err := scanWriteAheadLogs(dir, db.options.FS); err != nil {
		return unreadable(dir, err)
	}
	var err error
	db.pebble, err = failstop.Open(dir, options, &db.fault, db.options.Logger)
	if fault := db.fault.Get(); fault != nil {
		return fmt.Errorf("open the log in %s: %w", dir, fault)
	}
	if err != nil {
		return unreadable(dir, err)
	}
	err = checkFormat(db.pebble, dir, fresh)
	if fault := db.fault.Get(); fault != nil {
		err = fmt.Errorf("open the log in %s: %w", dir, fault)
	}
	if err != nil {
		return errors.Join(err, db.pebble.Close())
	}
	return nil
}

func unreadable(dir string, err error) error {
	return fmt.Errorf("open the log in %s: %w (if its files are damaged: restore this node from a backup, or replace it by a node with an empty directory and a new name)", dir, err)
}

// refuseForeign keeps a store of another program from being upgraded to Pebble's format of ours. One that has this format already
// loses nothing by being opened, and is refused afterwards: so the usual start does not read the directory twice.
func (db *DB) refuseForeign(dir string, options *pebble.Options) error {
	found, err := pebble.Peek(dir, db.options.FS)
	if err != nil {
		return fmt.Errorf("look into directory %s: %w", dir, err)
	}
	if found.FormatMajorVersion == pebbleFormat {
		return nil
	}
	foreign, err := isForeign(dir, options, db.options.Logger)
	if err != nil {
		return unreadable(dir, err)
	}
	if foreign {
		return fmt.Errorf("directory %s is a Pebble store of another program: give the node an empty directory", dir)
	}
	return nil
}

func (db *DB) pebbleOptions() *pebble.Options {
	options := &pebble.Options{
		FS:                 newSyncTimingFS(newZeroAheadFS(db.options.FS), db.options.OnSync),
		Lock:               db.lock,
		FormatMajorVersion: pebbleFormat,
		MemTableSize:       uint64(db.options.MemTableBytes),
		// A log is written once, read from memory, and purged: what compaction would win is not worth its work.
		L0CompactionThreshold: 8,
		L0StopWritesThreshold: 64,
		LBaseMaxBytes:         256 << 20,
	}
	options.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	return options
}

// enter must be called before Pebble is used, and leave after it, if enter returned nil.
func (db *DB) enter() error {
	db.mu.RLock()
	if db.closed {
		db.mu.RUnlock()
		return storage.ErrClosed
	}
	return nil
}

func (db *DB) leave() { db.mu.RUnlock() }

// applyDurably applies a batch, waits for its fsync and closes it. db must be entered.
func (db *DB) applyDurably(batch *pebble.Batch) error {
	if err := db.pebble.Apply(batch, pebble.Sync); err != nil {
		db.fault.Set(err)
	}
	if err := db.fault.Get(); err != nil {
		return err
	}
	db.durable.advance(endOfBatch(batch))
	return batch.Close()
}

// Close waits for what is under way, syncs what was written, and releases the directory and all its logs. Closing again does nothing.
// If the store has failed, Close says so.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return nil
	}
	db.closed = true
	groups := slices.Collect(maps.Values(db.groups))
	db.mu.Unlock()
	for _, log := range groups {
		log.reclaimer.close()
	}
	err := db.markEnd()
	err = errors.Join(err, db.pebble.Close(), db.lock.Close())
	if fault := db.fault.Get(); fault != nil {
		err = fmt.Errorf("it had failed: %w", fault)
	}
	if err != nil {
		return fmt.Errorf("close the log: %w", err)
	}
	return nil
}

// markEnd writes a durable mark that covers all that was written: at once if all was waited for, else after a first one.
func (db *DB) markEnd() error {
	for {
		before := db.durable.upTo.Load()
		batch := db.pebble.NewBatch()
		if err := db.durable.begin(batch); err != nil {
			return errors.Join(err, batch.Close())
		}
		if err := db.applyDurably(batch); err != nil {
			return err
		}
		if db.durable.upTo.Load() == before {
			return nil
		}
	}
}

// PebbleMetrics returns Pebble's own figures, or nil when the DB is closed.
func (db *DB) PebbleMetrics() *pebble.Metrics {
	db.mu.RLock()
	defer db.mu.RUnlock()
	if db.closed {
		return nil
	}
	return db.pebble.Metrics()
}
