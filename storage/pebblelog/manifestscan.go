package pebblelog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/storage"
)

// Pebble's manifest says which tables and write-ahead logs make the store. Pebble ends its reading at the first record that it cannot
// read, as with a write-ahead log (durablemark.go), and then deletes every table of which it has not read: one flipped bit, and a log is
// empty in silence. A record that was torn when the power failed was never synced, and nothing was deleted for it; it is the last one, and
// not whole.

// scanManifest refuses a directory whose manifest has a damaged record.
func scanManifest(dir string, files vfs.FS) error {
	found, err := pebble.Peek(dir, files)
	if err != nil || !found.Exists {
		return err
	}
	content, err := readFile(files, found.ManifestFilename)
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if at, damaged := manifestDamage(content); damaged {
		return fmt.Errorf("manifest %s: %w: the record at byte %d cannot be read", found.ManifestFilename, storage.ErrCorrupt, at)
	}
	return nil
}

func readFile(files vfs.FS, name string) (content []byte, err error) {
	file, err := files.Open(name, vfs.SequentialReadsOption)
	if err != nil {
		return nil, err
	}
	content, err = io.ReadAll(file)
	return content, errors.Join(err, file.Close())
}

// A manifest's chunk begins with a checksum (4 bytes), a length (2) and its position in the record (1). Blocks are those of write-ahead
// logs.
const manifestHeader = 7

// manifestDamage looks for a chunk that cannot be read and is not the torn end.
func manifestDamage(content []byte) (at int, damaged bool) {
	for at < len(content) {
		block := content[at:min(len(content), (at/walBlockBytes+1)*walBlockBytes)]
		if len(block) < manifestHeader && allZero(block) {
			at += len(block) // the rest of a block, in which no header fits
			continue
		}
		n, ok := manifestChunk(block)
		if !ok {
			return at, !isTorn(block, at) || readableBehind(content, at+1)
		}
		at += n
	}
	return 0, false
}

// manifestChunk returns the length of the chunk at the beginning of b, if it is whole.
func manifestChunk(b []byte) (n int, ok bool) {
	if len(b) < manifestHeader || b[6] < 1 || b[6] > 4 {
		return 0, false
	}
	n = manifestHeader + int(binary.LittleEndian.Uint16(b[4:]))
	return n, n <= len(b) && binary.LittleEndian.Uint32(b) == checksum(b[6:n])
}

// readableBehind reports whether a chunk can be read at or behind a place.
func readableBehind(content []byte, at int) bool {
	for ; at < len(content); at++ {
		block := content[at:min(len(content), (at/walBlockBytes+1)*walBlockBytes)]
		if n, ok := manifestChunk(block); ok && n > manifestHeader {
			return true
		}
	}
	return false
}

// pageBytes is the unit in which a file's content gets to the disk, or does not.
const pageBytes = 4 << 10

// isTorn reports whether the end of a manifest, which begins with a chunk that cannot be read, can be one that was not written to its end:
// the file is too short for it, or ends in zeros, or a page of it is missing. It stands at that place of the file.
func isTorn(b []byte, at int) bool {
	end := bytes.TrimRight(b, "\x00")
	if len(end) < manifestHeader || len(end) < len(b) || hasZeroPage(b, at) {
		return true
	}
	for position := byte(1); position <= 4; position++ { // whole, but for its length or position
		whole := append([]byte{position}, b[manifestHeader:]...)
		if binary.LittleEndian.Uint32(b) == checksum(whole) {
			return false
		}
	}
	return manifestHeader+int(binary.LittleEndian.Uint16(b[4:])) > len(b)
}

// hasZeroPage reports whether a page of the file is missing in b, which stands at that place: a whole one, or what is b's of the first one, if that is
// so much that the zeros are no part of a header.
func hasZeroPage(b []byte, at int) bool {
	if first := pageBytes - at%pageBytes; first < pageBytes {
		if first >= manifestHeader && first < len(b) && allZero(b[:first]) {
			return true
		}
		b = b[min(first, len(b)):]
	}
	for len(b) >= pageBytes {
		if allZero(b[:pageBytes]) {
			return true
		}
		b = b[pageBytes:]
	}
	return false
}
