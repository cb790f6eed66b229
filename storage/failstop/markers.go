package failstop

import (
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// settlingFS syncs a directory before a marker is made in it, and before one is removed. A marker is a file of Pebble's whose name says which
// other file is current; Pebble makes the new one, removes the old one, and then syncs the directory once. If the power fails before that, the
// marker may be there without the file that it names, where the fsync of a new file leaves its name to the directory; or the old one be gone, and
// the new one not be there: then a store that lost nothing could not be opened.
type settlingFS struct{ vfs.FS }

// Unwrap returns the file system below.
func (f *settlingFS) Unwrap() vfs.FS { return f.FS }

// Create makes a file.
func (f *settlingFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.settle(name); err != nil {
		return nil, err
	}
	return f.FS.Create(name, category)
}

// Remove removes a file.
func (f *settlingFS) Remove(name string) error {
	if err := f.settle(name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f *settlingFS) settle(name string) error {
	if !strings.HasPrefix(f.PathBase(name), "marker.") {
		return nil
	}
	dir, err := f.OpenDir(f.PathDir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
