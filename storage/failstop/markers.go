package failstop

import (
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// settlingFS syncs a directory before a marker is made in it. A marker is a file of Pebble's whose name says which other file is current; Pebble
// syncs the directory once, when it is made. If the power fails before that, the marker may be there without the file that it names, where
// the fsync of a new file leaves its name to the directory: then a store that lost nothing could not be opened.
type settlingFS struct{ vfs.FS }

// Unwrap returns the file system below.
func (f *settlingFS) Unwrap() vfs.FS { return f.FS }

// Create makes a file.
func (f *settlingFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(f.PathBase(name), "marker.") {
		dir, err := f.OpenDir(f.PathDir(name))
		if err != nil {
			return nil, err
		}
		if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
			return nil, err
		}
	}
	return f.FS.Create(name, category)
}
