// Package failstop has a Pebble, and the store above it, end at the first failure of their disk: nothing more reaches the disk after it, and
// the program lives on.
package failstop

import (
	"fmt"
	"os"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// FS turns the first failure to write or sync into a Fault, and from then on lets nothing more reach the disk, while Pebble is told that all
// went well.
//
// Pebble was made for programs that end at such a failure. One that lives on would see it panic (when it begins the next write-ahead
// log, under a lock that its Close needs too), retry for ever in the background, or, worst, sync its manifest a second time,
// believe it, and delete the write-ahead log that still held what the first sync lost. So Pebble works on in ignorance, without
// effect, and Close finds it in order. Who asks the store must not be deceived: the store looks at the Fault before it asks Pebble for
// anything that shall last, and again after, and the Fault is set before Pebble hears of success.
//
// Until it is armed, errors are passed on: while a Pebble is opened, it reports them.
type FS struct {
	vfs.FS
	fault *Fault
	armed atomic.Bool
}

// NewFS wraps a file system.
func NewFS(fs vfs.FS, fault *Fault) *FS { return &FS{FS: fs, fault: fault} }

// Arm has failures become the fault from now on.
func (f *FS) Arm() { f.armed.Store(true) }

// Unwrap returns the file system below.
func (f *FS) Unwrap() vfs.FS { return f.FS }

// stopped reports whether nothing may reach the disk any more.
func (f *FS) stopped() bool { return f.armed.Load() && f.fault.Get() != nil }

// failed makes err the fault, and reports whether Pebble must not hear of it.
func (f *FS) failed(what, name string, err error) bool {
	if err == nil || !f.armed.Load() {
		return false
	}
	f.fault.Set(fmt.Errorf("%s %s: %w", what, name, err))
	return true
}

// Create makes a file.
func (f *FS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.writable("create", name, func() (vfs.File, error) { return f.FS.Create(name, category) })
}

// OpenReadWrite opens or makes a file.
func (f *FS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return f.writable("open", name, func() (vfs.File, error) { return f.FS.OpenReadWrite(name, category, opts...) })
}

// ReuseForWrite makes a file of another one.
func (f *FS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.writable("create", newname, func() (vfs.File, error) { return f.FS.ReuseForWrite(oldname, newname, category) })
}

// OpenDir opens a directory, to sync it.
func (f *FS) OpenDir(name string) (vfs.File, error) {
	dir, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &file{File: dir, name: name, fs: f}, nil
}

func (f *FS) writable(what, name string, open func() (vfs.File, error)) (vfs.File, error) {
	if !f.stopped() {
		opened, err := open()
		if err == nil {
			return &file{File: opened, name: name, fs: f}, nil
		}
		if !f.failed(what, name, err) {
			return nil, err
		}
	}
	return &file{File: vfs.NewMemFile(nil), name: name, fs: f}, nil
}

// Link makes a second name.
func (f *FS) Link(oldname, newname string) error {
	return f.unlessStopped(func() error { return f.FS.Link(oldname, newname) })
}

// Remove removes a file.
func (f *FS) Remove(name string) error {
	return f.unlessStopped(func() error { return f.FS.Remove(name) })
}

// RemoveAll removes a directory.
func (f *FS) RemoveAll(name string) error {
	return f.unlessStopped(func() error { return f.FS.RemoveAll(name) })
}

// Rename renames a file.
func (f *FS) Rename(oldname, newname string) error {
	return f.unlessStopped(func() error { return f.FS.Rename(oldname, newname) })
}

// MkdirAll makes a directory.
func (f *FS) MkdirAll(dir string, perm os.FileMode) error {
	return f.unlessStopped(func() error { return f.FS.MkdirAll(dir, perm) })
}

func (f *FS) unlessStopped(op func() error) error {
	if f.stopped() {
		return nil
	}
	return op()
}

// file is an open file, or directory, of an FS.
type file struct {
	vfs.File
	name string
	fs   *FS
}

// Write writes, or pretends to.
func (f *file) Write(p []byte) (int, error) {
	n := len(p) // the file below may change p
	if f.fs.stopped() {
		return n, nil
	}
	written, err := f.File.Write(p)
	if f.fs.failed("write", f.name, err) {
		return n, nil
	}
	return written, err
}

// WriteAt writes, or pretends to.
func (f *file) WriteAt(p []byte, offset int64) (int, error) {
	n := len(p)
	if f.fs.stopped() {
		return n, nil
	}
	written, err := f.File.WriteAt(p, offset)
	if f.fs.failed("write", f.name, err) {
		return n, nil
	}
	return written, err
}

// Sync syncs, or pretends to.
func (f *file) Sync() error { return f.sync(f.File.Sync) }

// SyncData syncs, or pretends to.
func (f *file) SyncData() error { return f.sync(f.File.SyncData) }

// SyncTo syncs, or pretends to.
func (f *file) SyncTo(length int64) (full bool, err error) {
	err = f.sync(func() error {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

func (f *file) sync(op func() error) error {
	if f.fs.stopped() {
		return nil
	}
	err := op()
	if f.fs.failed("sync", f.name, err) {
		return nil
	}
	return err
}

// Preallocate is a hint.
func (f *file) Preallocate(offset, length int64) error {
	return f.fs.unlessStopped(func() error { return f.File.Preallocate(offset, length) })
}

// Close closes the file, also after the fault.
func (f *file) Close() error {
	err := f.File.Close()
	if f.fs.failed("close", f.name, err) || f.fs.stopped() {
		return nil
	}
	return err
}
