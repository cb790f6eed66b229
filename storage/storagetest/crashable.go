package storagetest

import (
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Crashable is a file system in memory whose power can be cut while it is in use. vfs.MemFS hangs if CrashClone comes in the middle of a Link or a
// ReuseForWrite, which take the lock against it twice.
type Crashable struct {
	*vfs.MemFS

	twice sync.RWMutex // held by who takes that lock twice
}

// NewCrashable makes an empty one.
func NewCrashable() *Crashable { return &Crashable{MemFS: vfs.NewCrashableMem()} }

// CrashClone returns what a power cut would leave. It is safe from several goroutines.
func (c *Crashable) CrashClone(cfg vfs.CrashCloneCfg) *Crashable {
	c.twice.Lock()
	defer c.twice.Unlock()
	return &Crashable{MemFS: c.MemFS.CrashClone(cfg)}
}

// Link implements vfs.FS.
func (c *Crashable) Link(oldname, newname string) error {
	c.twice.RLock()
	defer c.twice.RUnlock()
	return c.MemFS.Link(oldname, newname)
}

// ReuseForWrite implements vfs.FS.
func (c *Crashable) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	c.twice.RLock()
	defer c.twice.RUnlock()
	return c.MemFS.ReuseForWrite(oldname, newname, category)
}
