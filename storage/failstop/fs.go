package failstop

import (
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// stoppingFS turns the first failure to write or sync into a Fault, and from then on lets nothing more reach the disk, while Pebble is told
// that all went well.
type stoppingFS struct {
	vfs.FS
	fault *Fault
}

// Unwrap returns the file system below.
func (f *stoppingFS) Unwrap() vfs.FS { return f.FS }

// stopped reports whether nothing may reach the disk any more.
func (f *stoppingFS) stopped() bool { return f.fault.Get() != nil }

// check makes err, if there is one, the fault.
func (f *stoppingFS) check(what, name string, err error) {
	if err != nil {
		f.fault.Set(fmt.Errorf("%s %s: %w", what, name, err))
	}
}

// Create makes a file.
func (f *stoppingFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.writable("create", name, func() (vfs.File, error) { return f.FS.Create(name, category) })
}

// OpenReadWrite opens or makes a file.
func (f *stoppingFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return f.writable("open", name, func() (vfs.File, error) { return f.FS.OpenReadWrite(name, category, opts...) })
}

// ReuseForWrite makes a file of another one.
func (f *stoppingFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.writable("create", newname, func() (vfs.File, error) { return f.FS.ReuseForWrite(oldname, newname, category) })
}

// OpenDir opens a directory, to sync it.
func (f *stoppingFS) OpenDir(name string) (vfs.File, error) {
	dir, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &file{File: dir, name: name, fs: f}, nil
}

func (f *stoppingFS) writable(what, name string, open func() (vfs.File, error)) (vfs.File, error) {
	if !f.stopped() {
		opened, err := open()
		if err == nil {
			return &file{File: opened, name: name, fs: f}, nil
		}
		f.check(what, name, err)
	}
	return &file{File: vfs.NewMemFile(nil), name: name, fs: f}, nil
}

// Link makes a second name.
func (f *stoppingFS) Link(oldname, newname string) error {
	return f.unlessStopped(func() error { return f.FS.Link(oldname, newname) })
}

// Remove removes a file.
func (f *stoppingFS) Remove(name string) error {
	return f.unlessStopped(func() error { return f.FS.Remove(name) })
}

// RemoveAll removes a directory.
func (f *stoppingFS) RemoveAll(name string) error {
	return f.unlessStopped(func() error { return f.FS.RemoveAll(name) })
}

// Rename renames a file, or pretends to.
func (f *stoppingFS) Rename(oldname, newname string) error {
	f.check("rename to", newname, f.unlessStopped(func() error { return f.FS.Rename(oldname, newname) }))
	return nil
}

// MkdirAll makes a directory.
func (f *stoppingFS) MkdirAll(dir string, perm os.FileMode) error {
	return f.unlessStopped(func() error { return f.FS.MkdirAll(dir, perm) })
}

func (f *stoppingFS) unlessStopped(op func() error) error {
	if f.stopped() {
		return nil
	}
	return op()
}

// file is an open file, or directory, of a stoppingFS.
type file struct {
	vfs.File
	name string
	fs   *stoppingFS
}

// Write writes, or pretends to.
func (f *file) Write(p []byte) (int, error) {
	return f.write(len(p), func() (int, error) { return f.File.Write(p) })
}

// WriteAt writes, or pretends to.
func (f *file) WriteAt(p []byte, offset int64) (int, error) {
	return f.write(len(p), func() (int, error) { return f.File.WriteAt(p, offset) })
}

func (f *file) write(n int, op func() (int, error)) (int, error) {
	if !f.fs.stopped() {
		_, err := op()
		f.fs.check("write", f.name, err)
	}
	return n, nil
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
	f.fs.check("sync", f.name, f.fs.unlessStopped(op))
	return nil
}

// Preallocate is a hint.
func (f *file) Preallocate(offset, length int64) error {
	return f.fs.unlessStopped(func() error { return f.File.Preallocate(offset, length) })
}

// Close closes the file, also after the fault.
func (f *file) Close() error {
	f.fs.check("close", f.name, f.File.Close())
	return nil
}
