package objectstore

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"quorate/node/raft"
	"quorate/storage"
)

// The node's own records stand in the manifest while they are few. What a session keeps until its client has acknowledged it may be of any
// size, so a larger table has a stream of its own, cut into parts as a layer is:
//
//	format, then for each record: length of its key, key, length of its value, value; then 0
//
// Numbers are uvarints. No key is empty, so that 0 can only be the end.

const (
	recordsFormat = 1
	// maxInline is how much of records a manifest has, in bytes: more than a cluster without large results needs, so that its snapshots are one
	// object fewer, and can be read by versions that know no others; and little for whoever reads all manifests for a listing.
	maxInline = 1 << 20
	// maxRecords bounds the stream, in bytes: who reads it holds all of it in memory, and one small part may stand for 32 MiB, and be named as often
	// as a manifest has room for. A node that serves so much would have to hold it several times.
	maxRecords = 8 << 30
	// readAhead is how much of a value is made room for before its first byte is there: its length may be a lie.
	readAhead = 1 << 20
)

// ReadMeta returns a snapshot's Meta with its records, wherever these are: most are in the manifest, then nothing is read. What is missing or
// damaged gives a *DamagedError; a newer version's an error that wraps storage.ErrNewer.
func ReadMeta(ctx context.Context, blobs Blobs, m *Manifest, retry Retry) (storage.SnapshotMeta, error) {
	meta := m.Meta
	if len(m.Records) == 0 {
		return meta, nil
	}
	source := &recordSource{r: &partsReader{ctx: ctx, parts: m.Records, loader: loader{blobs: blobs, retry: retry}}}
	records, err := decodeRecords(source)
	if source.err != nil {
		err = source.err
	} else if err != nil {
		err = unread(m.Records[0].Name(), err)
	}
	if err := errors.Join(err, source.r.Close()); err != nil {
		return storage.SnapshotMeta{}, fmt.Errorf("read the records of a snapshot: %w", err)
	}
	meta.System = records
	return meta, nil
}

// recordSource keeps the error of the store apart from what is wrong with the bytes.
type recordSource struct {
	r   io.ReadCloser
	err error
}

// Read implements io.Reader.
func (s *recordSource) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// writeRecords writes records in parts of their own, unless they are few.
func (u *Upload) writeRecords(records []storage.SystemRecord) ([]Part, error) {
	var size uint64
	for _, r := range records {
		size += uint64(len(r.Key) + len(r.Value) + 2*binary.MaxVarintLen32)
	}
	if size <= maxInline {
		return nil, nil
	}
	if size > maxRecords { // said before all of it is sent
		return nil, tooManyRecords(size)
	}
	w := u.Layer(raft.LogID{})
	err := encodeRecords(w, records)
	// Also after an error: it ends the upload.
	if err := errors.Join(err, w.end()); err != nil {
		return nil, err
	}
	return w.layer.Parts, nil
}

func tooManyRecords(bytes uint64) error {
	return fmt.Errorf("system records of %d bytes are more than the %d that are read", bytes, uint64(maxRecords))
}

func encodeRecords(w io.Writer, records []storage.SystemRecord) error {
	out := bufio.NewWriterSize(w, 64<<10)
	var lengths []byte
	number := func(n int) {
		lengths = binary.AppendUvarint(lengths[:0], uint64(n))
		_, _ = out.Write(lengths) // Flush returns the error
	}
	number(recordsFormat)
	for _, r := range records {
		if err := checkRecord(r.Key); err != nil {
			return err
		}
		number(len(r.Key))
		_, _ = out.WriteString(r.Key)
		number(len(r.Value))
		if _, err := out.Write(r.Value); err != nil {
			return err
		}
	}
	number(0)
	return out.Flush()
}

// decodeRecords reads a stream to its end. It never makes room for more than about twice what has come. Errors wrap storage.ErrCorrupt or
// storage.ErrNewer.
func decodeRecords(r io.Reader) ([]storage.SystemRecord, error) {
	records, err := readRecords(bufio.NewReaderSize(r, 64<<10))
	switch {
	case errors.Is(err, storage.ErrNewer):
		return nil, fmt.Errorf("system records: %w", err)
	case err != nil:
		return nil, fmt.Errorf("system records: %w: %w", storage.ErrCorrupt, err)
	}
	return records, nil
}

func readRecords(in *bufio.Reader) ([]storage.SystemRecord, error) {
	format, err := binary.ReadUvarint(in)
	switch {
	case err != nil:
		return nil, err
	case format == 0:
		return nil, errors.New("they have no format")
	case format > recordsFormat:
		return nil, fmt.Errorf("format %d is not known here: %w", format, storage.ErrNewer)
	}
	var records []storage.SystemRecord
	for {
		n, err := binary.ReadUvarint(in)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		if n > maxSystemKey {
			return nil, fmt.Errorf("a system record's key of %d bytes", n)
		}
		key, err := readBytes(in, n)
		if err != nil {
			return nil, err
		}
		if n, err = binary.ReadUvarint(in); err != nil {
			return nil, err
		}
		value, err := readBytes(in, n)
		if err != nil {
			return nil, err
		}
		records = append(records, storage.SystemRecord{Key: string(key), Value: value})
	}
	// Only the end of the stream says that all of it was right.
	if _, err := in.ReadByte(); err != io.EOF {
		return nil, errors.Join(errors.New("something follows the last record"), err)
	}
	return records, nil
}

// readBytes reads so many bytes, and makes room for them as they come.
func readBytes(in io.Reader, n uint64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	var b []byte
	for have := uint64(0); have < n; have = uint64(len(b)) {
		b = append(b, make([]byte, min(n-have, max(have, readAhead)))...)
		if _, err := io.ReadFull(in, b[have:]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func checkRecord(key string) error {
	if len(key) < minSystemKey || len(key) > maxSystemKey {
		return fmt.Errorf("a system record's key of %d bytes", len(key))
	}
	return nil
}
