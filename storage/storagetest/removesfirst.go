package storagetest

import (
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// RemovesFirst is a disk on which the removal of a file may be all that is left, when the power is cut, of what was not synced before it.
type RemovesFirst struct {
	vfs.FS
	// Memory is what FS writes to.
	Memory *Crashable
	// Of is how the names of the files begin whose removal is looked at.
	Of string

	mu sync.Mutex // guards what follows
	// Left is what each of these removals would have left.
	Left []*Crashable
}

// Unwrap returns the file system below.
func (d *RemovesFirst) Unwrap() vfs.FS { return d.FS }

// Remove implements vfs.FS.
func (d *RemovesFirst) Remove(name string) error {
	if strings.HasPrefix(d.PathBase(name), d.Of) {
		left := d.Memory.CrashClone(vfs.CrashCloneCfg{})
		_ = left.Remove(name) // its making may not be there either
		d.mu.Lock()
		d.Left = append(d.Left, left)
		d.mu.Unlock()
	}
	return d.FS.Remove(name)
}
