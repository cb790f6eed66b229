package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage"
)

var (
	errCorrupt = errors.New("the state is damaged")
	errClosed  = errors.New("the store is closed")
)

// StoreOptions change how a Store is opened. The zero value serves.
type StoreOptions struct {
	// FS is the file system. Default: the operating system's.
	FS vfs.FS
	// Logger gets Pebble's own log lines. Default: slog.Default().
	Logger *slog.Logger

	// history stands for DefaultHistory, in tests.
	history uint64
}

// Store is the key-value state machine: the versions of every key, in Pebble. It implements node.DurableStateMachine.
//
// Its Pebble has no write-ahead log: the Raft log is its log. What was applied is durable when Pebble has flushed it, and
// after a crash the node applies again what came later.
//
// Reading is safe from several goroutines, also during Apply.
type Store struct {
	dir     string
	options StoreOptions
	marker  *atomicfs.Marker

	mu      sync.RWMutex // guards db and current while a snapshot is put in their place
	db      *pebble.DB
	current string
	failed  error
	failMu  sync.Mutex    // guards failed
	broken  chan struct{} // closed when failed is set

	history  history
	stop     context.CancelFunc // ends sweepHistory
	sweepers sync.WaitGroup

	tableBytes int // restoredTableBytes, but in tests
}

var (
	_ node.DurableStateMachine = (*Store)(nil)
	_ node.StagedStateMachine  = (*Store)(nil)
	_ node.DeltaSnapshot       = (*snapshot)(nil)
)

// markerName is the file-name part that names the current state directory.
const markerName = "state"

// OpenStore opens the state in dir, or makes it.
func OpenStore(dir string, options StoreOptions) (*Store, error) {
	if options.FS == nil {
		options.FS = vfs.Default
	}
	if options.Logger == nil {
		options.Logger = slog.Default()
	}
	if options.history == 0 {
		options.history = DefaultHistory
	}
	s := &Store{
		dir: dir, options: options, tableBytes: restoredTableBytes,
		history: history{wake: make(chan struct{}, 1)}, broken: make(chan struct{}),
	}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open the state in %s: %w", dir, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.sweepers.Go(func() { s.sweepHistory(ctx) })
	return s, nil
}

func (s *Store) open() error {
	fs := s.options.FS
	if err := storage.MakeDir(fs, s.dir); err != nil {
		return err
	}
	if err := s.checkDirectory(); err != nil {
		return err
	}
	marker, current, err := atomicfs.LocateMarker(fs, s.dir, markerName)
	if err != nil {
		return err
	}
	s.marker = marker
	if current == "" {
		current = "state-1"
		db, err := s.openPebble(current)
		if err != nil {
			return errors.Join(err, marker.Close())
		}
		if err := errors.Join(db.Set(formatKey, strconv.AppendInt(nil, formatNumber, 10), pebble.NoSync), s.flush(db), db.Close(), marker.Move(current)); err != nil {
			return errors.Join(err, marker.Close())
		}
	}
	if err := s.removeLeftOvers(current); err != nil {
		return errors.Join(err, marker.Close())
	}
	db, err := s.openPebble(current)
	if err != nil {
		return errors.Join(err, marker.Close())
	}
	s.db, s.current = db, current
	err = checkFormat(db)
	if err == nil {
		var position position
		position, err = s.readPosition(db)
		s.history.begin(position)
	}
	if err != nil {
		return errors.Join(err, db.Close(), marker.Close())
	}
	return nil
}

// checkDirectory refuses a directory with somebody else's files in it.
func (s *Store) checkDirectory() error {
	names, err := s.options.FS.List(s.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "state-") && !strings.HasPrefix(name, "marker."+markerName+".") {
			return fmt.Errorf("the directory holds %q, which is not Quorate's: give the node an empty directory", name)
		}
	}
	return nil
}

// removeLeftOvers deletes what an installation of a snapshot that did not end has left.
func (s *Store) removeLeftOvers(current string) error {
	names, err := s.options.FS.List(s.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, "state-") && name != current {
			if err := s.options.FS.RemoveAll(s.options.FS.PathJoin(s.dir, name)); err != nil {
				return fmt.Errorf("remove %s, which an installation left behind: %w", name, err)
			}
		}
	}
	return s.marker.RemoveObsolete()
}

func (s *Store) openPebble(name string) (*pebble.DB, error) {
	if err := storage.MakeDir(s.options.FS, s.options.FS.PathJoin(s.dir, name)); err != nil {
		return nil, err
	}
	dir, options := s.options.FS.PathJoin(s.dir, name), s.pebbleOptions()
	lock, err := pebble.LockDirectory(dir, options.FS) // Pebble's own error does not tell a lock from damage
	if err == nil {
		err = lock.Close()
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("lock it: %w: the user who runs this process must own the directory", err)
	case err != nil:
		return nil, fmt.Errorf("it is in use, by another process or this one (%w): stop that one first, or give this node another directory", err)
	}
	db, err := storage.OpenPebble(dir, options)
	if err != nil {
		return nil, fmt.Errorf("%w (if its files are damaged: restore state and log from one backup, or replace this node by one with an empty directory and a new name)", err)
	}
	return db, nil
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
		Logger:                  &storeLogger{logger: s.options.Logger, store: s},
		EventListener:           &pebble.EventListener{FlushEnd: s.flushEnded},
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

// Applied returns up to where the state is durable.
func (s *Store) Applied() (node.Applied, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var applied node.Applied
	it, err := s.db.NewIter(&pebble.IterOptions{UpperBound: systemEnd, OnlyReadGuaranteedDurable: true})
	if err != nil {
		return applied, fmt.Errorf("read the applied log id: %w", err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return applied, errors.Join(fmt.Errorf("read the applied log id: %w", err), it.Close())
		}
		switch key := it.Key(); {
		case bytes.Equal(key, lastKey):
			if applied.Last, err = storage.DecodeLogID(value); err != nil {
				return applied, errors.Join(fmt.Errorf("read the applied log id: %w", err), it.Close())
			}
		case bytes.HasPrefix(key, systemPrefix):
			applied.System = append(applied.System, node.SystemRecord{
				Key: string(key[len(systemPrefix):]), Value: bytes.Clone(value),
			})
		}
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return applied, fmt.Errorf("read the applied log id: %w", err)
	}
	return applied, nil
}

// Sync makes everything applied durable.
func (s *Store) Sync(context.Context) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.flush(s.db)
}

// flush makes what a Pebble of the store has in memory durable. It returns too when that failed: Pebble itself would try again for ever,
// without a pause.
func (s *Store) flush(db *pebble.DB) error {
	if err := s.failure(); err != nil {
		return err
	}
	flushed, err := db.AsyncFlush()
	if err != nil {
		return fmt.Errorf("flush the state: %w", err)
	}
	select {
	case <-flushed:
	case <-s.broken:
	}
	return s.failure()
}

// emptyFlush is how Pebble calls a flush that had nothing to write. That is no failure; the error has no name outside of Pebble.
const emptyFlush = "pebble: empty table"

// flushEnded marks the store as failed when what was applied cannot be made durable.
func (s *Store) flushEnded(info pebble.FlushInfo) {
	if info.Err != nil && info.Err.Error() != emptyFlush {
		s.fail(fmt.Errorf("flush the state: %w", info.Err))
	}
}

// Close flushes the state, so that the next start has less to apply, and closes it.
func (s *Store) Close() error {
	s.stop()
	s.sweepers.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil
	}
	err := errors.Join(s.flush(s.db), s.db.Close(), s.marker.Close())
	s.db = nil
	if err != nil {
		return fmt.Errorf("close the state: %w", err)
	}
	return nil
}

// PebbleMetrics returns Pebble's own figures, or nil when the store is closed.
func (s *Store) PebbleMetrics() *pebble.Metrics {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return nil
	}
	return s.db.Metrics()
}

func (s *Store) fail(err error) {
	s.failMu.Lock()
	defer s.failMu.Unlock()
	if s.failed == nil {
		s.failed = err
		s.options.Logger.Error("the state has failed", "error", err)
		close(s.broken)
	}
}

func (s *Store) failure() error {
	s.failMu.Lock()
	defer s.failMu.Unlock()
	return s.failed
}

// writePosition stores up to where a batch goes, with the node's own records, beside the batch's changes.
func writePosition(batch *pebble.Batch, last raft.LogID, system []node.SystemRecord) error {
	value, err := storage.EncodeLogID(last)
	if err != nil {
		return err
	}
	if err := batch.Set(lastKey, value, nil); err != nil {
		return err
	}
	for _, record := range system {
		key := append(bytes.Clone(systemPrefix), record.Key...)
		if len(record.Value) == 0 {
			err = batch.Delete(key, nil)
		} else {
			err = batch.Set(key, record.Value, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// storeLogger passes Pebble's log lines on. What Pebble takes to be the end of the program only marks the store as failed: the next
// Apply returns it, and the node stops.
type storeLogger struct {
	logger *slog.Logger
	store  *Store
}

func (l *storeLogger) Infof(format string, args ...any) {
	l.logger.Debug(storage.PebbleMessage(format, args...), "from", "pebble")
}

func (l *storeLogger) Errorf(format string, args ...any) {
	if l.store.failure() != nil {
		return // it has been said, and Pebble says it again and again
	}
	l.logger.Error(storage.PebbleMessage(format, args...), "from", "pebble")
}

func (l *storeLogger) Fatalf(format string, args ...any) {
	l.store.fail(errors.New("pebble: " + storage.PebbleMessage(format, args...)))
}
