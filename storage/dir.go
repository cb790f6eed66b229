package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// MakeDir makes a directory, and those above it that are missing, so that they are still there after a loss of power: a new
// directory's name is durable only when the directory it stands in is synced.
func MakeDir(files vfs.FS, dir string) error {
	if _, err := files.Stat(dir); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	parent := files.PathDir(dir)
	if parent != dir {
		if err := MakeDir(files, parent); err != nil {
			return err
		}
	}
	if err := files.MkdirAll(dir, os.FileMode(0o755)); err != nil {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	handle, err := files.OpenDir(parent)
	if err != nil {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	if err := errors.Join(handle.Sync(), handle.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", parent, err)
	}
	return nil
}
