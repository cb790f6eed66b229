package pebblelog

import (
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// zeroAhead is how much of a write-ahead log is filled with zeros at a time, ahead of what is written. Its own fsync is paid with that of
// the write that needed it.
const zeroAhead = 256 << 10

// zeroAheadFS fills write-ahead logs with zeros ahead of their end. An fsync of what lies within a file that was written before has
// no length and no extents to put into the file system's journal: only the data waits for the disk. Pebble's own preallocation does not
// achieve that (what is only reserved is an extent to be converted); the logs that it recycles have it already, but these come only
// after the first, of which a small cluster may never see the end.
//
// A reader takes zeros after the last record for the end, as it does with a log that Pebble has preallocated.
type zeroAheadFS struct {
	vfs.FS
	zeros []byte
}

func newZeroAheadFS(fs vfs.FS) *zeroAheadFS {
	return &zeroAheadFS{FS: fs, zeros: make([]byte, zeroAhead)}
}

// Unwrap returns the file system below.
func (f *zeroAheadFS) Unwrap() vfs.FS { return f.FS }

// Create makes a file, and has a write-ahead log filled ahead.
func (f *zeroAheadFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, category)
	if err != nil || !isWriteAheadLog(name) {
		return file, err
	}
	return &zeroAheadFile{File: file, zeros: f.zeros}, nil
}

func isWriteAheadLog(name string) bool { return strings.HasSuffix(filepath.Base(name), ".log") }

// zeroAheadFile is written by one goroutine, from its beginning on.
type zeroAheadFile struct {
	vfs.File
	zeros  []byte
	end    int64 // of what was written
	zeroed int64 // up to here there is at least a zero
}

// Write writes at the end of what was written.
func (f *zeroAheadFile) Write(p []byte) (int, error) {
	for f.end+int64(len(p)) > f.zeroed {
		n, err := f.WriteAt(f.zeros, f.zeroed)
		f.zeroed += int64(n)
		if err != nil {
			return 0, err
		}
	}
	n, err := f.File.Write(p)
	f.end += int64(n)
	return n, err
}

// Preallocate does nothing: what is zeroed is better than preallocated.
func (f *zeroAheadFile) Preallocate(int64, int64) error { return nil }
