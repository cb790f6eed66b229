package kv

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"strings"
)

// A snapshot is a stream of layers: the whole state, then differences, oldest first. Each layer is
//
//	the magic line
//	a byte of kind (1 whole, 2 difference), then since, upto, floor, and the setting of the history: each 8 bytes, big-endian, the last 16
//	records: the lengths of key and value as varints, the key (of a version, as in the state), the value
//	an end record: an empty key; the value is the number of records (8 bytes) and the CRC-32C of all before it (4 bytes)
//
// Keys ascend within a layer. A difference holds every version with since < revision <= upto; whoever has the state at since or later,
// not beyond upto, has the state at upto when it has stored them all.
const (
	layerMagic  = "quorate kv snapshot 3\n"
	magicPrefix = "quorate kv snapshot "

	layerWhole = 1
	layerDelta = 2

	layerHeaderBytes = 1 + 3*8 + historySettingBytes
	layerEndBytes    = 8 + 4
)

// Bounds of a record; more is damage.
const (
	maxSnapshotKey   = 4 * MaxKeyBytes
	maxSnapshotValue = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// layerHeader says what a layer holds.
type layerHeader struct {
	kind byte
	// since is the log index after which a difference begins; 0 for the whole state.
	since uint64
	// upto is the log index that the state had reached.
	upto uint64
	// floor is the revision below which the history may have gaps; floor <= upto, and floor <= since in a difference, so that no deletion
	// can be missing from it.
	floor uint64
	// setting of the history, at upto.
	setting historySetting
}

func (h layerHeader) append(b []byte) []byte {
	b = append(b, h.kind)
	b = binary.BigEndian.AppendUint64(b, h.since)
	b = binary.BigEndian.AppendUint64(b, h.upto)
	b = binary.BigEndian.AppendUint64(b, h.floor)
	return h.setting.append(b)
}

func parseLayerHeader(b []byte) layerHeader {
	return layerHeader{
		kind: b[0], since: binary.BigEndian.Uint64(b[1:]), upto: binary.BigEndian.Uint64(b[9:]), floor: binary.BigEndian.Uint64(b[17:]),
		setting: parseHistorySetting(b[25:]),
	}
}

// check says whether the layer may follow the one before it, nil for none.
func (h layerHeader) check(before *layerHeader) error {
	switch {
	case h.kind != layerWhole && h.kind != layerDelta:
		return fmt.Errorf("%w: a layer of kind %d", errCorrupt, h.kind)
	case h.since > h.upto || h.floor > h.upto || h.upto == math.MaxUint64:
		return fmt.Errorf("%w: a layer since %d up to %d with floor %d", errCorrupt, h.since, h.upto, h.floor)
	case h.setting.revisions == 0 || h.setting.base > h.upto:
		return fmt.Errorf("%w: a layer up to %d that keeps %d revisions from %d on", errCorrupt, h.upto, h.setting.revisions, h.setting.base)
	case h.kind == layerWhole && before != nil:
		return fmt.Errorf("%w: a whole state follows another layer", errCorrupt)
	case h.kind == layerWhole && h.since != 0:
		return fmt.Errorf("%w: a whole state that begins after index %d", errCorrupt, h.since)
	case h.kind == layerWhole:
		return nil
	case before == nil:
		return fmt.Errorf("%w: the first layer is a difference", errCorrupt)
	case h.floor > h.since:
		return fmt.Errorf("%w: a difference since %d with gaps up to %d", errCorrupt, h.since, h.floor)
	case h.since > before.upto:
		return fmt.Errorf("%w: a layer is missing: a difference since %d follows a layer up to %d", errCorrupt, h.since, before.upto)
	case h.upto < before.upto:
		return fmt.Errorf("%w: a layer up to %d follows one up to %d", errCorrupt, h.upto, before.upto)
	}
	return nil
}

// layerWriter writes one layer: newLayerWriter, record for each version in order, end.
type layerWriter struct {
	buffered *bufio.Writer
	w        io.Writer // buffered, and sum
	sum      hash.Hash32
	records  uint64
	head     []byte
}

func newLayerWriter(w io.Writer, header layerHeader) (*layerWriter, error) {
	o := &layerWriter{buffered: bufio.NewWriterSize(w, 1<<20), sum: crc32.New(castagnoli)}
	o.w = io.MultiWriter(o.buffered, o.sum)
	_, err := o.w.Write(header.append([]byte(layerMagic)))
	return o, err
}

func (o *layerWriter) record(key, value []byte) error {
	o.records++
	return o.put(key, value)
}

func (o *layerWriter) put(key, value []byte) error {
	o.head = binary.AppendUvarint(o.head[:0], uint64(len(key)))
	o.head = binary.AppendUvarint(o.head, uint64(len(value)))
	for _, part := range [][]byte{o.head, key, value} {
		if _, err := o.w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

func (o *layerWriter) end() error {
	end := binary.BigEndian.AppendUint64(nil, o.records)
	end = binary.BigEndian.AppendUint32(end, o.sum.Sum32())
	return errors.Join(o.put(nil, end), o.buffered.Flush())
}

// layerReader reads layers one after the other: next, then records, until next returns io.EOF. It holds one record at a time.
type layerReader struct {
	in     *summingReader
	before *layerHeader
	buf    []byte
	last   []byte
	key    []byte
}

func newLayerReader(r io.Reader) *layerReader {
	return &layerReader{in: &summingReader{r: bufio.NewReaderSize(r, 1<<20), sum: crc32.New(castagnoli)}}
}

// next begins a layer. It returns io.EOF after the last one.
func (l *layerReader) next() (layerHeader, error) {
	if _, err := l.in.r.Peek(1); err == io.EOF && l.before != nil {
		return layerHeader{}, io.EOF
	}
	l.in.sum.Reset()
	var head [len(layerMagic) + layerHeaderBytes]byte
	magic, rest := head[:len(layerMagic)], head[len(layerMagic):]
	if err := l.in.full(magic); err != nil {
		return layerHeader{}, err
	}
	if string(magic) != layerMagic {
		if format, ok := strings.CutPrefix(string(magic), magicPrefix); ok {
			return layerHeader{}, fmt.Errorf("%w: the snapshot has format %.8q, this version reads format 3 only: make a new snapshot with this version", errCorrupt, strings.TrimSpace(format))
		}
		return layerHeader{}, fmt.Errorf("%w: what should be a layer of a snapshot is none", errCorrupt)
	}
	if err := l.in.full(rest); err != nil {
		return layerHeader{}, err
	}
	header := parseLayerHeader(rest)
	if err := header.check(l.before); err != nil {
		return layerHeader{}, err
	}
	l.before = &header
	return header, nil
}

// records reads the layer that next began, to its end. It fails unless the layer is complete and its checksum right; until it returns
// nil, none of what it handed out may be trusted. Key and value are valid during the call of record only.
func (l *layerReader) records(record func(key, value []byte) error) error {
	l.last = l.last[:0]
	for records := uint64(0); ; records++ {
		sum := l.in.sum.Sum32()
		key, value, err := l.pair()
		if err != nil {
			return err
		}
		if len(key) == 0 {
			if len(value) != layerEndBytes || binary.BigEndian.Uint64(value) != records || binary.BigEndian.Uint32(value[8:]) != sum {
				return fmt.Errorf("%w: the snapshot's checksum is wrong", errCorrupt)
			}
			return nil
		}
		if err := l.checkRecord(key, value); err != nil {
			return err
		}
		if err := record(key, value); err != nil {
			return err
		}
	}
}

func (l *layerReader) pair() (key, value []byte, err error) {
	keyLen, err := l.in.uvarint(maxSnapshotKey)
	if err != nil {
		return nil, nil, err
	}
	valueLen, err := l.in.uvarint(maxSnapshotValue)
	if err != nil {
		return nil, nil, err
	}
	if l.buf, err = l.in.grow(l.buf[:0], keyLen+valueLen); err != nil {
		return nil, nil, err
	}
	return l.buf[:keyLen], l.buf[keyLen:], nil
}

func (l *layerReader) checkRecord(key, value []byte) error {
	plain, revision, err := splitVersionKey(l.key[:0], key)
	if err != nil {
		return err
	}
	l.key = plain
	if revision > l.before.upto || (l.before.kind == layerDelta && revision <= l.before.since) {
		return fmt.Errorf("%w: revision %d in a layer since %d up to %d", errCorrupt, revision, l.before.since, l.before.upto)
	}
	if bytes.Compare(key, l.last) <= 0 {
		return fmt.Errorf("%w: the snapshot's keys are not in order", errCorrupt)
	}
	l.last = append(l.last[:0], key...)
	_, _, _, err = splitRecord(value)
	return err
}

// summingReader adds what is read to the checksum.
type summingReader struct {
	r   *bufio.Reader
	sum hash.Hash32
	one [1]byte
}

func (s *summingReader) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.one[0] = b
		s.sum.Write(s.one[:])
	}
	return b, err
}

func (s *summingReader) full(b []byte) error {
	if _, err := io.ReadFull(s.r, b); err != nil {
		return readError(err)
	}
	s.sum.Write(b)
	return nil
}

func (s *summingReader) uvarint(most uint64) (int, error) {
	v, err := binary.ReadUvarint(s)
	if err != nil {
		return 0, readError(err)
	}
	if v > most {
		return 0, fmt.Errorf("%w: a record of %d bytes", errCorrupt, v)
	}
	return int(v), nil
}

// readError says that the stream ends too early, or passes on why it could not be read.
func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the snapshot is cut short: %w", errCorrupt, err)
	}
	return fmt.Errorf("read the snapshot: %w", err)
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
