package pebblelog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/storage"
)

// scanWriteAheadLogs refuses a directory in which a write-ahead log cannot be read up to where it is known to have been synced.
func scanWriteAheadLogs(dir string, files vfs.FS) error {
	names, err := files.List(dir)
	if err != nil {
		return fmt.Errorf("look into directory %s: %w", dir, err)
	}
	for _, name := range names {
		number, isLog := strings.CutSuffix(name, ".log")
		n, err := strconv.ParseUint(number, 10, 64)
		if !isLog || err != nil {
			continue
		}
		if err := scanFile(files, files.PathJoin(dir, name), uint32(n)); err != nil {
			return fmt.Errorf("write-ahead log %s: %w", files.PathJoin(dir, name), err)
		}
	}
	return nil
}

func scanFile(files vfs.FS, name string, number uint32) (err error) {
	file, err := files.Open(name, vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	scan := walScan{number: number}
	block := make([]byte, walBlockBytes)
	for {
		n, err := io.ReadFull(file, block)
		if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
			return err
		}
		scan.block(block[:n])
		if n < len(block) {
			return scan.damage()
		}
	}
}

// walBlockBytes is the size of Pebble's blocks. Records are cut into chunks, and no chunk crosses the end of a block.
const walBlockBytes = 32 << 10

// A chunk's header is a checksum (4 bytes), a length (2), an encoding (1) and the number of the log (4); one with a sync offset has
// 8 bytes more. A log file that is used again ends in chunks of another number.
const (
	recyclableHeader = 11
	syncHeader       = 19
)

// position is the place of a chunk in its record.
type position int

const (
	full position = iota
	first
	middle
	last
)

// walScan reads a write-ahead log as Pebble does, and further on behind what Pebble cannot read.
type walScan struct {
	number uint32

	record   []byte // the beginning of the record that is being read
	inRecord bool

	broken bool   // something could not be read; what follows is about what was read before, and after
	read   bool   // a record was, before
	end    uint64 // of the last one
	after  uint64 // where the first record behind begins, or 0
	mark   uint64 // the furthest durable mark behind
}

// damage says whether records are lost that were synced.
func (s *walScan) damage() error {
	// If no record was read before, where the lost ones begin is not known, but they end where the first one behind begins.
	lost := s.read && s.mark > s.end || !s.read && s.after != 0 && s.mark >= s.after
	if !lost {
		return nil
	}
	return fmt.Errorf("%w: what was synced up to sequence number %d can be read up to %d only", storage.ErrCorrupt, s.mark, s.end)
}

func (s *walScan) block(b []byte) {
	for len(b) > 0 {
		if len(b) < syncHeader && allZero(b) {
			return // the rest of a block, in which no header fits
		}
		chunk, rest, ok := cutChunk(b)
		if !ok {
			s.breakOff()
			return // where the next chunk begins is not known
		}
		if payload, position, ok := chunk.open(s.number); ok {
			s.chunk(position, payload)
		} else {
			s.breakOff()
		}
		b = rest
	}
}

func (s *walScan) breakOff() { s.broken, s.inRecord = true, false }

func (s *walScan) chunk(at position, payload []byte) {
	switch {
	case at == full || at == first:
		s.record, s.inRecord = s.record[:0], true
	case !s.inRecord:
		s.broken = true
		return
	}
	s.record = append(s.record, payload[:min(len(payload), recordPrefix-len(s.record))]...)
	if at == full || at == last {
		s.inRecord = false
		s.complete()
	}
}

func (s *walScan) complete() {
	seq, end, mark, ok := parseRecord(s.record)
	if !ok {
		s.broken = true
		return
	}
	if !s.broken {
		s.read, s.end = true, end
		return
	}
	if s.after == 0 {
		s.after = seq
	}
	s.mark = max(s.mark, mark)
}

// walChunk is a chunk that may be damaged, but whose length is plausible.
type walChunk struct {
	bytes  []byte
	header int
}

// cutChunk cuts the first chunk off. ok is false if there is none of a kind that is known.
func cutChunk(b []byte) (chunk walChunk, rest []byte, ok bool) {
	if len(b) < recyclableHeader {
		return walChunk{}, nil, false
	}
	header := 0
	switch encoding := b[6]; {
	case encoding >= 5 && encoding <= 8:
		header = recyclableHeader
	case encoding >= 9 && encoding <= 12:
		header = syncHeader
	default:
		return walChunk{}, nil, false
	}
	length := header + int(binary.LittleEndian.Uint16(b[4:]))
	if length > len(b) {
		return walChunk{}, nil, false
	}
	return walChunk{bytes: b[:length], header: header}, b[length:], true
}

// open checks a chunk and returns what is in it.
func (c walChunk) open(number uint32) (payload []byte, at position, ok bool) {
	b := c.bytes
	sum := checksum(b[6:])
	if binary.LittleEndian.Uint32(b) != sum || binary.LittleEndian.Uint32(b[7:]) != number {
		return nil, 0, false
	}
	return b[c.header:], position((b[6] - 5) % 4), true
}

// checksum is CRC-32C, turned and moved as LevelDB does it.
func checksum(b []byte) uint32 {
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return (sum>>15 | sum<<17) + 0xa282ead8
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
