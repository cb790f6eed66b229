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

// Restore replaces the state by the layers in r: it builds a fresh directory beside the present one, syncs it, and moves the marker that
// names the current one, which is atomic. A crash at any instant leaves the old state or the new. Memory does not grow with the
// snapshot.
func (s *Store) Restore(ctx context.Context, meta node.SnapshotMeta, r io.Reader) error {
	s.mu.RLock()
	number, err := strconv.Atoi(strings.TrimPrefix(s.current, "state-"))
	s.mu.RUnlock()
	if err != nil {
		return fmt.Errorf("restore a snapshot: current directory %q: %w", s.current, err)
	}
	name := "state-" + strconv.Itoa(number+1)
	path := s.options.FS.PathJoin(s.dir, name)
	if err := s.options.FS.RemoveAll(path); err != nil {
		return fmt.Errorf("restore a snapshot: %w", err)
	}
	fresh, err := s.openPebble(name)
	if err != nil {
		return fmt.Errorf("restore a snapshot: %w", err)
	}
	if err := s.fill(ctx, fresh, path, meta, r); err != nil {
		return errors.Join(fmt.Errorf("restore a snapshot: %w", err), fresh.Close(), s.options.FS.RemoveAll(path))
	}
	return s.swap(fresh, name)
}

// swap makes a filled and flushed Pebble the current one.
func (s *Store) swap(fresh *pebble.DB, name string) error {
	position, err := readPosition(fresh)
	if err == nil {
		err = s.marker.Move(name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("restore a snapshot: %w", err), fresh.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, oldName := s.db, s.current
	s.db, s.current = fresh, name
	s.history.begin(position)
	if err := errors.Join(old.Close(), s.options.FS.RemoveAll(s.options.FS.PathJoin(s.dir, oldName))); err != nil {
		return fmt.Errorf("remove the state that a snapshot replaced: %w", err)
	}
	return nil
}

// fill puts layers into an empty Pebble in the directory path, and makes all durable. The records of a layer are in order, so they go into
// tables at once, which Pebble takes over: nothing is written twice.
func (s *Store) fill(ctx context.Context, db *pebble.DB, path string, meta node.SnapshotMeta, r io.Reader) error {
	layers := newLayerReader(r)
	var floor uint64
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
		floor = max(floor, header.floor)
		tables := s.newTableWriter(path, db.TableFormat())
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
		writePosition(batch, meta.Last, meta.System),
		db.Apply(batch, pebble.NoSync),
		db.Flush(),
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
