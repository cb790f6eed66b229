package kv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node"
)

// restoredTableBytes is how large a table of a restored layer grows, about. Pebble's own are between 2 and 128 MiB.
const restoredTableBytes = 64 << 20

// Restore replaces the state by the layers in r: Stage and Install in one. A crash at any instant leaves the old state or the new.
func (s *Store) Restore(ctx context.Context, meta node.SnapshotMeta, r io.Reader) error {
	staged, err := s.Stage(ctx, meta, r)
	if err != nil {
		return err
	}
	return staged.Install()
}

// Stage reads the layers in r into a fresh directory beside that of the present state, and makes it durable. Memory does not grow with the
// snapshot. It implements node.StagedStateMachine, and may run beside everything else but another Stage.
func (s *Store) Stage(ctx context.Context, meta node.SnapshotMeta, r io.Reader) (node.Staged, error) {
	s.mu.RLock()
	db := s.db
	s.mu.RUnlock()
	if db == nil {
		return nil, errClosed
	}
	number, err := strconv.Atoi(strings.TrimPrefix(db.name, "state-"))
	if err != nil {
		return nil, fmt.Errorf("restore a snapshot: current directory %q: %w", db.name, err)
	}
	name := "state-" + strconv.Itoa(number+1)
	if err := s.options.FS.RemoveAll(s.path(name)); err != nil {
		return nil, fmt.Errorf("restore a snapshot: %w", err)
	}
	fresh, err := s.openPebble(name)
	if err != nil {
		return nil, fmt.Errorf("restore a snapshot: %w", err)
	}
	g := &staged{store: s, fresh: fresh}
	if err := s.fill(ctx, fresh, meta, r); err != nil {
		return nil, errors.Join(fmt.Errorf("restore a snapshot: %w", err), g.Discard())
	}
	return g, nil
}

// staged is a state that is ready to be put in the place of the present one.
type staged struct {
	store *Store
	fresh *stateDB
}

// Install moves the marker that names the current directory, which is atomic, and has the old one removed in the background.
func (g *staged) Install() error { return g.store.swap(g.fresh) }

// Discard removes the directory.
func (g *staged) Discard() error {
	if err := errors.Join(g.fresh.Close(), g.store.options.FS.RemoveAll(g.store.path(g.fresh.name))); err != nil {
		return fmt.Errorf("discard a restored state: %w", err)
	}
	return nil
}

// swap makes a filled and flushed Pebble the current one.
func (s *Store) swap(fresh *stateDB) error {
	position, err := s.readPosition(fresh)
	if err == nil {
		err = s.moveMarker(fresh.name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("restore a snapshot: %w", err), fresh.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.db
	s.db = fresh
	s.history.begin(position)
	if s.onFail != nil {
		fresh.tell(s.onFail)
	}
	old.replaced.Store(true)
	// A compaction that is under way, and many files, take their time, and RaftCore and all readers would wait.
	s.background.Go(func() {
		if err := errors.Join(old.Close(), s.options.FS.RemoveAll(s.path(old.name))); err != nil {
			s.options.Logger.Warn("cannot remove the state that a snapshot replaced; the next start does", "state", old.name, "error", err)
		}
	})
	return nil
}

// fill puts layers into an empty Pebble, and makes all durable. The records of a layer are in order, so they go into
// tables at once, which Pebble takes over: nothing is written twice.
func (s *Store) fill(ctx context.Context, db *stateDB, meta node.SnapshotMeta, r io.Reader) error {
	layers := newLayerReader(r)
	var floor uint64
	var setting historySetting
	for {
		header, err := layers.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if header.upto > meta.Last.Index {
			return fmt.Errorf("%w: a layer up to %d in a snapshot up to %v", errCorrupt, header.upto, meta.Last)
		}
		// Layers may come from nodes that have removed different parts of their history.
		floor, setting = max(floor, header.floor), header.setting
		tables := s.newTableWriter(s.path(db.name), db.TableFormat())
		err = layers.records(func(key, value []byte) error { return tables.set(ctx, key, value) })
		if err := errors.Join(err, tables.finish()); err != nil {
			return err
		}
		if len(tables.paths) == 0 {
			continue
		}
		if err := db.Ingest(ctx, tables.paths); err != nil {
			return err
		}
	}
	batch := db.NewBatch()
	defer func() { _ = batch.Close() }() // a batch in memory; nothing is lost by it
	return errors.Join(
		batch.Set(formatKey, strconv.AppendInt(nil, formatNumber, 10), nil),
		setRevision(batch, floorKey, floor),
		batch.Set(historyKey, setting.append(nil), nil),
		writePosition(batch, meta.Last, meta.System),
		db.Apply(batch, pebble.NoSync),
		db.flush(),
	)
}

// tableWriter writes records, which come in order, into tables beside those of a Pebble.
type tableWriter struct {
	fs      vfs.FS
	dir     string
	options sstable.WriterOptions
	paths   []string
	most    int // bytes of a table, about
	now     *sstable.Writer
	bytes   int // in now
}

func (s *Store) newTableWriter(dir string, format sstable.TableFormat) *tableWriter {
	options := s.pebbleOptions()
	options.EnsureDefaults()
	lowest := len(options.Levels) - 1
	return &tableWriter{fs: s.options.FS, dir: dir, options: options.MakeWriterOptions(lowest, format), most: s.tableBytes}
}

func (w *tableWriter) set(ctx context.Context, key, value []byte) error {
	if w.now == nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		path := w.fs.PathJoin(w.dir, fmt.Sprintf("layer-%06d.sst", len(w.paths)))
		file, err := w.fs.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		w.now, w.bytes = sstable.NewWriter(objstorageprovider.NewFileWritable(file), w.options), 0
		w.paths = append(w.paths, path)
	}
	if err := w.now.Set(key, value); err != nil {
		return err
	}
	if w.bytes += len(key) + len(value); w.bytes < w.most {
		return nil
	}
	return w.finish()
}

// finish syncs and closes the table that is being written.
func (w *tableWriter) finish() error {
	if w.now == nil {
		return nil
	}
	err := w.now.Close()
	w.now = nil
	return err
}
