package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// MakeDir makes a directory, and those above it that are missing, so that all are still there after a loss of power: a directory's
// name is durable only when the directory it stands in is synced. Those that are there already are synced too: whoever made them, a
// process that was killed or an operator, may not have done it.
func MakeDir(files vfs.FS, dir string, mode os.FileMode) error {
	parent := files.PathDir(dir)
	if parent == dir { // the root, or where the process is
		return nil
	}
	if err := MakeDir(files, parent, mode); err != nil {
		return err
	}
	if err := files.MkdirAll(dir, mode); err != nil {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	if err := syncDir(files, parent); err != nil && !slices.ContainsFunc(unsyncable, func(e error) bool { return errors.Is(err, e) }) {
		return fmt.Errorf("sync directory %s: %w", parent, err)
	}
	return nil
}

// unsyncable is what a directory says of which this process cannot, or need not, make the names durable: one that it may not read, as the
// parents of a service's directory can be, or one of a file system without such a thing, as a read-only root.
var unsyncable = []error{fs.ErrPermission, errors.ErrUnsupported, syscall.EINVAL, syscall.EROFS}

func syncDir(files vfs.FS, dir string) error {
	handle, err := files.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(handle.Sync(), handle.Close())
}
