package kv

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"quorate/node"
)

// A snapshot is a stream: the magic line, then records, each the lengths of key and value as varints, the key and the value; the
// end is a record with an empty key, whose value is the number of records and the CRC-32C of all before it.
const snapshotMagic = "quorate kv snapshot 1\n"

// Bounds of a record; more is damage.
const (
	maxSnapshotKey   = 4 * MaxKeyBytes
	maxSnapshotValue = 1 << 30
)

// Snapshot returns a view of the state as it is now.
func (s *Store) Snapshot() (node.Snapshot, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return &snapshot{view: s.db.NewSnapshot()}, nil
}

type snapshot struct{ view *pebble.Snapshot }

func (s *snapshot) Close() error { return s.view.Close() }

// WriteTo writes every version of every key.
func (s *snapshot) WriteTo(ctx context.Context, w io.Writer) (err error) {
	buffered := bufio.NewWriterSize(w, 1<<20)
	out := recordWriter{sum: crc32.New(crc32.MakeTable(crc32.Castagnoli))}
	out.w = io.MultiWriter(buffered, out.sum)
	if _, err := io.WriteString(out.w, snapshotMagic); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	it, err := s.view.NewIter(&pebble.IterOptions{LowerBound: []byte{dataPrefix}, UpperBound: []byte{dataPrefix + 1}})
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var records uint64
	for ok := it.First(); ok; ok = it.Next() {
		if records++; records%1024 == 0 && ctx.Err() != nil {
			return fmt.Errorf("write snapshot: %w", context.Cause(ctx))
		}
		value, err := it.ValueAndErr()
		if err == nil {
			err = out.record(it.Key(), value)
		}
		if err != nil {
			return fmt.Errorf("write snapshot: %w", err)
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	end := binary.BigEndian.AppendUint64(nil, records)
	end = binary.BigEndian.AppendUint32(end, out.sum.Sum32())
	if err := errors.Join(out.record(nil, end), buffered.Flush()); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

type recordWriter struct {
	w    io.Writer
	sum  hash.Hash32
	head []byte
}

func (o *recordWriter) record(key, value []byte) error {
	o.head = binary.AppendUvarint(o.head[:0], uint64(len(key)))
	o.head = binary.AppendUvarint(o.head, uint64(len(value)))
	for _, part := range [][]byte{o.head, key, value} {
		if _, err := o.w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// Restore replaces the state: it builds a fresh directory beside the present one, syncs it, and moves the marker that names
// the current one, which is atomic. A crash at any instant leaves the old state or the new.
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
	if err := fillFrom(ctx, fresh, meta, r); err != nil {
		return errors.Join(fmt.Errorf("restore a snapshot: %w", err), fresh.Close(), s.options.FS.RemoveAll(path))
	}
	return s.swap(fresh, name)
}

// swap makes a filled and flushed Pebble the current one.
func (s *Store) swap(fresh *pebble.DB, name string) error {
	if err := s.marker.Move(name); err != nil {
		return errors.Join(fmt.Errorf("restore a snapshot: %w", err), fresh.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, oldName := s.db, s.current
	s.db, s.current = fresh, name
	if err := errors.Join(old.Close(), s.options.FS.RemoveAll(s.options.FS.PathJoin(s.dir, oldName))); err != nil {
		return fmt.Errorf("remove the state that a snapshot replaced: %w", err)
	}
	return nil
}

// fillFrom reads a snapshot into an empty Pebble and flushes it.
func fillFrom(ctx context.Context, db *pebble.DB, meta node.SnapshotMeta, r io.Reader) error {
	batch := db.NewBatch()
	defer func() { _ = batch.Close() }() // a batch in memory; nothing is lost by it
	if err := batch.Set(formatKey, strconv.AppendInt(nil, formatNumber, 10), nil); err != nil {
		return err
	}
	err := readSnapshot(r, func(key, value []byte) error {
		if err := batch.Set(key, value, nil); err != nil {
			return err
		}
		if batch.Len() < 1<<20 {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := db.Apply(batch, pebble.NoSync)
		batch.Reset()
		return err
	})
	if err != nil {
		return err
	}
	if err := writePosition(batch, meta.Last, meta.System); err != nil {
		return err
	}
	return errors.Join(db.Apply(batch, pebble.NoSync), db.Flush())
}

// readSnapshot reads a snapshot's records. It fails unless the stream is complete and its checksum right; until it returns nil, none
// of what it handed out may be trusted.
func readSnapshot(r io.Reader, record func(key, value []byte) error) error {
	in := &summingReader{r: bufio.NewReaderSize(r, 1<<20), sum: crc32.New(crc32.MakeTable(crc32.Castagnoli))}
	magic := make([]byte, len(snapshotMagic))
	if err := in.full(magic); err != nil {
		return err
	}
	if string(magic) != snapshotMagic {
		return fmt.Errorf("%w: it is not a snapshot of this version's format", errCorrupt)
	}
	var records uint64
	var buf, last []byte
	for {
		sum := in.sum.Sum32()
		keyLen, err := in.uvarint(maxSnapshotKey)
		if err != nil {
			return err
		}
		valueLen, err := in.uvarint(maxSnapshotValue)
		if err != nil {
			return err
		}
		if buf, err = in.grow(buf[:0], keyLen+valueLen); err != nil {
			return err
		}
		key, value := buf[:keyLen], buf[keyLen:]
		if keyLen == 0 {
			if len(value) != 12 || binary.BigEndian.Uint64(value) != records || binary.BigEndian.Uint32(value[8:]) != sum {
				return fmt.Errorf("%w: the snapshot's checksum is wrong", errCorrupt)
			}
			return nil
		}
		if _, _, err := splitVersionKey(nil, key); err != nil {
			return err
		}
		if bytes.Compare(key, last) <= 0 {
			return fmt.Errorf("%w: the snapshot's keys are not in order", errCorrupt)
		}
		last = append(last[:0], key...)
		if _, _, _, err := splitRecord(value); err != nil {
			return err
		}
		if err := record(key, value); err != nil {
			return err
		}
		records++
	}
}

type summingReader struct {
	r   *bufio.Reader
	sum hash.Hash32
}

func (s *summingReader) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.sum.Write([]byte{b})
	}
	return b, err
}

func (s *summingReader) full(b []byte) error {
	if _, err := io.ReadFull(s.r, b); err != nil {
		return fmt.Errorf("%w: the snapshot is cut short: %w", errCorrupt, err)
	}
	s.sum.Write(b)
	return nil
}

func (s *summingReader) uvarint(most uint64) (int, error) {
	v, err := binary.ReadUvarint(s)
	if err != nil {
		return 0, fmt.Errorf("%w: the snapshot is cut short: %w", errCorrupt, err)
	}
	if v > most {
		return 0, fmt.Errorf("%w: a record of %d bytes", errCorrupt, v)
	}
	return int(v), nil
}

// grow reads n bytes onto b, in steps, so that a wrong length costs no more memory than there is data.
func (s *summingReader) grow(b []byte, n int) ([]byte, error) {
	const step = 1 << 20
	for n > 0 {
		part := min(n, step)
		at := len(b)
		b = append(b, make([]byte, part)...)
		if err := s.full(b[at:]); err != nil {
			return nil, err
		}
		n -= part
	}
	return b, nil
}
