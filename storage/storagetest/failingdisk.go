package storagetest

import (
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// FailingDisk is a disk in memory of which operations that change it fail, as a function decides by their number, from 1 on, and kind.
type FailingDisk struct {
	// Memory is what reached the disk. Its CrashClone shows what a power cut leaves. It may be set before FS is called.
	Memory *Crashable

	fail func(n int, op errorfs.Op) error

	mu     sync.Mutex // guards what follows
	count  int
	failed *errorfs.Op
	after  []errorfs.Op
}

// NewFailingDisk makes an empty disk. fail is asked before each operation that changes it, by one goroutine at a time, and returns the
// error, or nil.
func NewFailingDisk(fail func(n int, op errorfs.Op) error) *FailingDisk {
	return &FailingDisk{Memory: NewCrashable(), fail: fail}
}

// FS returns the file system to give to the store.
func (d *FailingDisk) FS() vfs.FS { return reusingFS{FS: errorfs.Wrap(d.Memory, d), disk: d} }

// Operations returns how many operations there were.
func (d *FailingDisk) Operations() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count
}

// Failed returns the first operation that failed, and those that were asked for after it; nil if none has failed.
func (d *FailingDisk) Failed() (op *errorfs.Op, after []errorfs.Op) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed, d.after
}

// String names the injector.
func (d *FailingDisk) String() string { return "failing disk" }

// MaybeError is asked before each operation. It implements errorfs.Injector.
func (d *FailingDisk) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead || op.Kind == errorfs.OpFileClose {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count++
	if d.failed != nil {
		d.after = append(d.after, op)
	}
	err := d.fail(d.count, op)
	if err != nil && d.failed == nil {
		d.failed = &op
	}
	return err
}

// reusingFS makes files that are used again fail too. Write-ahead logs are of that kind, and errorfs passes them on as they are.
type reusingFS struct {
	vfs.FS
	disk *FailingDisk
}

func (f reusingFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.ReuseForWrite(oldname, newname, category)
	if err != nil {
		return nil, err
	}
	return errorfs.WrapFile(file, named{f.disk, newname}), nil
}

// named adds the name of the file, which errorfs.WrapFile does not know.
type named struct {
	*FailingDisk
	path string
}

func (n named) MaybeError(op errorfs.Op) error {
	op.Path = n.path
	return n.FailingDisk.MaybeError(op)
}

// IsSync reports whether an operation makes a file durable.
func IsSync(op errorfs.Op) bool {
	return op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
}

// DescribeOp says what an operation does, and to which file.
func DescribeOp(op errorfs.Op) string {
	kind, ok := map[errorfs.OpKind]string{
		errorfs.OpCreate: "create", errorfs.OpLink: "link", errorfs.OpRemove: "remove", errorfs.OpRemoveAll: "remove all",
		errorfs.OpRename: "rename", errorfs.OpReuseForWrite: "reuse", errorfs.OpMkdirAll: "mkdir", errorfs.OpLock: "lock",
		errorfs.OpFilePreallocate: "preallocate", errorfs.OpFileWrite: "write", errorfs.OpFileWriteAt: "write at",
		errorfs.OpFileSync: "sync", errorfs.OpFileSyncData: "sync data", errorfs.OpFileSyncTo: "sync to",
	}[op.Kind]
	if !ok {
		kind = fmt.Sprintf("operation of kind %d", op.Kind)
	}
	return kind + " of " + op.Path
}
