package pebblelog

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/storage"
	"quorate/storage/failstop"
)

// formatNumber is the layout that this package writes.
const formatNumber = 1

// pebbleFormat is the format of Pebble's own files. It is fixed, so that a new version of the library changes no directory unasked.
// Its write-ahead logs (FormatWALSyncChunks and newer) tell a torn end from damage in the middle.
const pebbleFormat = pebble.FormatValueSeparation

var formatKey = []byte("\x00format")

// claimDirectory makes the directory if it is not there, refuses one with somebody else's files before anything in it is changed, and
// locks it. It reports whether there is no store yet.
func claimDirectory(dir string, files vfs.FS) (lock *pebble.Lock, fresh bool, err error) {
	if err := storage.MakeDir(files, dir, 0o755); err != nil {
		return nil, false, err
	}
	if fresh, err = checkFiles(dir, files); err != nil {
		return nil, false, err
	}
	lock, err = pebble.LockDirectory(dir, files)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, false, fmt.Errorf("lock directory %s: %w: the user who runs this process must own the directory", dir, err)
	case err != nil:
		return nil, false, fmt.Errorf("directory %s is in use, by another process or this one (%w): stop that one first, or give this node another directory", dir, err)
	}
	return lock, fresh, nil
}

// checkFiles refuses a directory by the names of its files, and by the format of Pebble's.
func checkFiles(dir string, files vfs.FS) (fresh bool, err error) {
	names, err := files.List(dir)
	if err != nil {
		return false, fmt.Errorf("look into directory %s: %w", dir, err)
	}
	found, err := pebble.Peek(dir, files)
	if err != nil {
		return false, fmt.Errorf("directory %s holds a store that this version cannot read (%w): start the version of Quorate that wrote it, or a newer one", dir, err)
	}
	if found.Exists {
		if torn, err := tornFirstStart(dir, files, found.ManifestFilename, names); err != nil || torn {
			return torn, err
		}
		if found.FormatMajorVersion > pebbleFormat {
			return false, newerFormat(dir, "Pebble's "+found.FormatMajorVersion.String(), "Pebble's "+pebbleFormat.String())
		}
		return false, nil
	}
	for _, name := range names {
		if !leftByFirstStart(name) {
			return false, fmt.Errorf("directory %s holds %q and no log: it is not a directory of Quorate, or one that is damaged; give the node an empty one (if this node has taken part in its cluster, under a new name)", dir, name)
		}
	}
	return true, nil
}

// tornFirstStart reports whether the power failed while the store was being made: the marker is on disk, the manifest that it names is not,
// and no table nor a byte of a write-ahead log is there, so that nothing can be lost. It removes the markers: the store is made anew.
func tornFirstStart(dir string, files vfs.FS, manifest string, names []string) (bool, error) {
	if _, err := files.Stat(manifest); !errors.Is(err, fs.ErrNotExist) {
		return false, nil // Pebble says what is wrong with it, if anything is
	}
	for _, name := range names {
		if leftByFirstStart(name) {
			continue
		}
		info, err := files.Stat(files.PathJoin(dir, name))
		if err != nil {
			return false, fmt.Errorf("look into directory %s: %w", dir, err)
		}
		if !strings.HasSuffix(name, ".log") || info.Size() > 0 {
			return false, nil
		}
	}
	for _, name := range names {
		if strings.HasPrefix(name, "marker.") || strings.HasSuffix(name, ".log") {
			if err := files.Remove(files.PathJoin(dir, name)); err != nil {
				return false, fmt.Errorf("make the store in %s anew: %w", dir, err)
			}
		}
	}
	return true, nil
}

// leftByFirstStart reports whether a first start that was cut off can have left that file before there was a store, and so before
// anything was in it that could be lost. Tables and write-ahead logs are not among these.
func leftByFirstStart(name string) bool {
	return name == "LOCK" || strings.HasPrefix(name, "MANIFEST-") || strings.HasPrefix(name, "marker.") ||
		strings.HasPrefix(name, "OPTIONS-") || strings.HasSuffix(name, ".dbtmp")
}

// checkFormat reads the format number, or writes it into a fresh store.
func checkFormat(db *pebble.DB, dir string, fresh bool) error {
	value, closer, err := db.Get(formatKey)
	if errors.Is(err, pebble.ErrNotFound) {
		empty, err := isEmpty(db)
		if err != nil {
			return fmt.Errorf("read the format of %s: %w", dir, err)
		}
		if !fresh && !empty {
			return fmt.Errorf("directory %s is a Pebble store of another program: give the node an empty directory", dir)
		}
		if err := db.Set(formatKey, strconv.AppendInt(nil, formatNumber, 10), pebble.Sync); err != nil {
			return fmt.Errorf("write the format of %s: %w", dir, err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the format of %s: %w", dir, err)
	}
	known := strconv.Itoa(formatNumber)
	if string(value) != known {
		return errors.Join(newerFormat(dir, strconv.Quote(string(value)), known), closer.Close())
	}
	return closer.Close()
}

func newerFormat(dir, found, known string) error {
	return fmt.Errorf("the log in %s has format %s, this version knows up to %s: start the version of Quorate that wrote it, or a newer one", dir, found, known)
}

func isEmpty(db *pebble.DB) (bool, error) {
	it, err := db.NewIter(nil)
	if err != nil {
		return false, err
	}
	found := it.First()
	return !found, errors.Join(it.Error(), it.Close())
}

// isForeign reports whether a store is surely another program's, without changing a file of it.
func isForeign(dir string, options *pebble.Options, logger *slog.Logger) (bool, error) {
	readOnly := *options
	readOnly.ReadOnly = true
	var fault failstop.Fault
	db, err := failstop.Open(dir, &readOnly, &fault, logger)
	if err != nil {
		return false, err
	}
	_, closer, err := db.Get(formatKey)
	if err == nil {
		return false, errors.Join(closer.Close(), db.Close())
	}
	if !errors.Is(err, pebble.ErrNotFound) {
		return false, errors.Join(err, db.Close())
	}
	empty, err := isEmpty(db)
	return !empty, errors.Join(err, db.Close())
}
