package kv

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Keys of the state's Pebble; see the package comment.
const (
	formatNumber = 3

	// Escaping of a key, which keeps the order of keys: 00 becomes 00 ff, and 00 01 ends the key.
	escape     = 0x00
	escaped00  = 0xff
	terminator = 0x01
	// afterVersions sorts after all versions of a key and before the next key.
	afterVersions = 0x02
)

var (
	formatKey    = []byte("\x00format")
	lastKey      = []byte("\x00last")
	floorKey     = []byte("\x00floor")
	sweptKey     = []byte("\x00swept")
	historyKey   = []byte("\x00history")
	systemPrefix = []byte("\x00system/")
	systemEnd    = []byte("\x00system0") // '0' follows '/'
	dataPrefix   = byte('k')
)

// appendKey appends what all versions of a key begin with.
func appendKey(b []byte, key []byte) []byte {
	b = append(b, dataPrefix)
	b = appendEscaped(b, key)
	return append(b, escape, terminator)
}

func appendEscaped(b []byte, key []byte) []byte {
	for _, c := range key {
		b = append(b, c)
		if c == escape {
			b = append(b, escaped00)
		}
	}
	return b
}

// appendVersionKey appends the key of one version. Newer versions come first.
func appendVersionKey(b []byte, key []byte, revision uint64) []byte {
	return binary.BigEndian.AppendUint64(appendKey(b, key), ^revision)
}

// splitVersionKey takes the key of a version apart. The key is appended to buf.
func splitVersionKey(buf, k []byte) (key []byte, revision uint64, err error) {
	if len(k) < 1+2+8 || k[0] != dataPrefix {
		return nil, 0, fmt.Errorf("%w: a version key of %d bytes", errCorrupt, len(k))
	}
	body := k[1 : len(k)-8]
	for i := 0; i < len(body); i++ {
		if body[i] != escape {
			buf = append(buf, body[i])
			continue
		}
		i++
		switch {
		case i == len(body):
			return nil, 0, fmt.Errorf("%w: a version key ends inside an escape", errCorrupt)
		case body[i] == escaped00:
			buf = append(buf, escape)
		case body[i] == terminator && i == len(body)-1:
			return buf, ^binary.BigEndian.Uint64(k[len(k)-8:]), nil
		default:
			return nil, 0, fmt.Errorf("%w: a version key has escape %#x", errCorrupt, body[i])
		}
	}
	return nil, 0, fmt.Errorf("%w: a version key without an end", errCorrupt)
}

// A version's record: one byte of kind, eight of time, the value.
const (
	recordHeader    = 9
	recordValue     = 1
	recordTombstone = 2
)

func putRecord(b []byte, kind byte, at time.Time, value []byte) {
	b[0] = kind
	binary.BigEndian.PutUint64(b[1:], uint64(at.UnixNano()))
	copy(b[recordHeader:], value)
}

// splitRecord takes a version's record apart.
func splitRecord(b []byte) (deleted bool, at time.Time, value []byte, err error) {
	if len(b) < recordHeader || (b[0] != recordValue && b[0] != recordTombstone) {
		return false, time.Time{}, nil, fmt.Errorf("%w: a version record of %d bytes", errCorrupt, len(b))
	}
	return b[0] == recordTombstone, time.Unix(0, int64(binary.BigEndian.Uint64(b[1:]))), b[recordHeader:], nil
}
