package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	lock    io.Closer // held from open to Close
	marker  *atomicfs.Marker
	markers *markersFS // what marker works on

	mu     sync.RWMutex // guards what follows while a snapshot is put in its place
	db     *stateDB     // nil when the store is closed
	onFail func(error)

	history    history
	stop       context.CancelFunc // ends sweepHistory
	background sync.WaitGroup     // sweepHistory, and the removal of states that were replaced

	tableBytes int // restoredTableBytes, but in tests
}

var (
	_ node.DurableStateMachine = (*Store)(nil)
	_ node.StagedStateMachine  = (*Store)(nil)
	_ node.FailingStateMachine = (*Store)(nil)
	_ node.DeltaSnapshot       = (*snapshot)(nil)
)

const (
	// markerName is the file-name part that names the current state directory, firstState the first one.
	markerName = "state"
	firstState = "state-1"
	// lockName is the file that a Store locks. Versions that know of no lock take it for one of theirs, and open the directory.
	lockName = "state-lock"
)

// OpenStore opens the state in dir, or makes it. The directory is the Store's until Close: a second one is refused, and changes nothing.
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
		history: history{wake: make(chan struct{}, 1)},
	}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open the state in %s: %w", dir, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.background.Go(func() { s.sweepHistory(ctx) })
	return s, nil
}

func (s *Store) open() (err error) {
	fs := s.options.FS
	if err := storage.MakeDir(fs, s.dir, 0o755); err != nil {
		return err
	}
	if err := s.checkDirectory(); err != nil {
		return err
	}
	// Before anything is looked for: what another process prepares, or puts in place meanwhile, would be taken for a left-over.
	if s.lock, err = fs.Lock(s.path(lockName)); err != nil {
		return lockError(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.lock.Close())
		}
	}()
	s.markers = &markersFS{FS: fs}
	marker, current, err := atomicfs.LocateMarker(s.markers, s.dir, markerName)
	if err != nil {
		return err
	}
	s.marker = marker
	defer func() {
		if err != nil {
			err = errors.Join(err, marker.Close())
		}
	}()
	if current == "" {
		if err := s.checkFirst(); err != nil {
			return err
		}
		current = firstState
		db, err := s.openPebble(current)
		if err != nil {
			return err
		}
		err = errors.Join(db.Set(formatKey, strconv.AppendInt(nil, formatNumber, 10), pebble.NoSync), db.flush(), db.Close())
		if err == nil {
			err = s.moveMarker(current)
		}
		if err != nil {
			return err
		}
	}
	if err := s.removeLeftOvers(current); err != nil {
		return err
	}
	db, err := s.openPebble(current)
	if err != nil {
		return err
	}
	s.db = db
	err = checkFormat(db.DB)
	if err == nil {
		var position position
		position, err = s.readPosition(db)
		s.history.begin(position)
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	return nil
}

// moveMarker makes another directory the current one, atomically. If it fails, which one a crash leaves is not known.
func (s *Store) moveMarker(name string) (err error) {
	defer func() {
		if p := recover(); p != nil { // at an fsync that fails
			err = fmt.Errorf("name the current state: %v", p)
			if cause, ok := p.(error); ok {
				err = fmt.Errorf("name the current state: %w", cause)
			}
		}
	}()
	s.markers.keep = true
	defer func() { s.markers.keep = false }()
	if err := s.marker.Move(name); err != nil {
		return err
	}
	s.markers.keep = false
	if err := s.marker.RemoveObsolete(); err != nil {
		s.options.Logger.Warn("cannot remove the marker of an earlier state; the next start does", "error", err)
	}
	return nil
}

// markersFS is the file system of the marker. A move of it makes the new marker, removes the old one, and syncs the directory after that: if the
// power failed before, the removal could be on disk, and the new marker not. So the old one is kept until the move is over.
type markersFS struct {
	vfs.FS
	keep bool
}

var errMarkerKept = errors.New("it is removed when the new one is on disk")

// Remove removes a file.
func (f *markersFS) Remove(name string) error {
	if f.keep {
		return errMarkerKept
	}
	return f.FS.Remove(name)
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

// checkFirst refuses a directory without a marker if it has a state that only an installation makes: there was a marker then. It is an empty file,
// which some ways to copy a directory leave out.
func (s *Store) checkFirst() error {
	names, err := s.options.FS.List(s.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, "state-") && name != firstState && name != lockName {
			return fmt.Errorf("%w: it holds %s, and no file marker.%s.* that says which state is the present one: restore state and log from one backup, empty files too, or replace this node by one with an empty directory and a new name", errCorrupt, name, markerName)
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
		if strings.HasPrefix(name, "state-") && name != current && name != lockName {
			if err := s.options.FS.RemoveAll(s.path(name)); err != nil {
				return fmt.Errorf("remove %s, which an installation left behind: %w", name, err)
			}
		}
	}
	return s.marker.RemoveObsolete()
}

// Applied returns up to where the state is durable.
func (s *Store) Applied() (node.Applied, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	applied, err := readApplied(s.db)
	if failure := s.db.failure(); failure != nil { // Pebble may take for durable what a stopped disk did not get
		return node.Applied{}, failure
	}
	if err != nil {
		return node.Applied{}, fmt.Errorf("read the applied log id: %w", err)
	}
	return applied, nil
}

func readApplied(db *stateDB) (applied node.Applied, err error) {
	it, err := db.NewIter(&pebble.IterOptions{UpperBound: systemEnd, OnlyReadGuaranteedDurable: true})
	if err != nil {
		return applied, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return applied, err
		}
		switch key := it.Key(); {
		case bytes.Equal(key, lastKey):
			if applied.Last, err = storage.DecodeLogID(value); err != nil {
				return applied, err
			}
		case bytes.HasPrefix(key, systemPrefix):
			applied.System = append(applied.System, node.SystemRecord{
				Key: string(key[len(systemPrefix):]), Value: bytes.Clone(value),
			})
		}
	}
	return applied, it.Error()
}

// OnFailure has tell called when the state can no longer be trusted: a failed write or fsync, a full disk, damage that Pebble met in the
// background. It implements node.FailingStateMachine.
func (s *Store) OnFailure(tell func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onFail = tell
	if s.db != nil {
		s.db.tell(tell)
	}
}

// Sync makes everything applied durable. It holds up nothing, however slow the disk is: a snapshot that is installed meanwhile is durable, so what
// becomes of the state in whose place it stands is no matter.
func (s *Store) Sync(context.Context) error {
	s.mu.RLock()
	db := s.db
	if db == nil {
		s.mu.RUnlock()
		return errClosed
	}
	db.syncs.Add(1)
	s.mu.RUnlock()
	defer db.syncs.Done()
	if err := db.flush(); err != nil && !db.replaced.Load() {
		return err
	}
	return nil
}

// Close flushes the state, so that the next start has less to apply, and closes it.
func (s *Store) Close() error {
	s.stop()
	s.background.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil
	}
	err := errors.Join(s.db.flush(), s.db.Close(), s.marker.Close(), s.lock.Close())
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
