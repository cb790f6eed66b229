package pebblelog

import (
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// syncTimingFS tells how long each fsync of a write-ahead log took.
type syncTimingFS struct {
	vfs.FS
	took func(time.Duration)
}

// newSyncTimingFS returns fs itself if nobody wants to know.
func newSyncTimingFS(fs vfs.FS, took func(time.Duration)) vfs.FS {
	if took == nil {
		return fs
	}
	return &syncTimingFS{FS: fs, took: took}
}

// Unwrap returns the file system below.
func (f *syncTimingFS) Unwrap() vfs.FS { return f.FS }

// Create makes a file.
func (f *syncTimingFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, category)
	return f.timed(name, file, err)
}

// ReuseForWrite makes a file of another one.
func (f *syncTimingFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.ReuseForWrite(oldname, newname, category)
	return f.timed(newname, file, err)
}

func (f *syncTimingFS) timed(name string, file vfs.File, err error) (vfs.File, error) {
	if err != nil || !isWriteAheadLog(name) {
		return file, err
	}
	return &syncTimingFile{File: file, took: f.took}, nil
}

type syncTimingFile struct {
	vfs.File
	took func(time.Duration)
}

// Sync syncs.
func (f *syncTimingFile) Sync() error { return f.timed(f.File.Sync) }

// SyncData syncs.
func (f *syncTimingFile) SyncData() error { return f.timed(f.File.SyncData) }

func (f *syncTimingFile) timed(sync func() error) error {
	began := time.Now()
	err := sync()
	f.took(time.Since(began))
	return err
}
