package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// exportDir is the directory that an export writes to. Everything goes through an os.Root, so no path and no symbolic link
// that lies there leads out of it. Its methods are safe from several goroutines.
type exportDir struct {
	root *os.Root
	// temp is a directory in root for files that are being written.
	temp    string
	lock    *os.File // of temp: says that the export runs
	written atomic.Uint64

	mu   sync.Mutex // guards made
	made map[string]bool
}

// Beside its directory for files that are being written, which begins with exportTemp, an export has a file that it holds a lock of:
// it is there before the directory, and locked, so that one whose lock is free, with its directory or without, is of an export that was killed.
const (
	exportTemp = ".quorate-export-"
	exportLock = ".lock"
)

// openExportDir makes the directory if it does not exist. What is in it stays, but files of the same names, and what exports left that were
// killed.
func openExportDir(dir string) (_ *exportDir, err error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("export to %s: %w", dir, err)
	}
	d := &exportDir{made: map[string]bool{".": true}}
	if d.root, err = os.OpenRoot(dir); err != nil {
		return nil, fmt.Errorf("export to %s: %w", dir, err)
	}
	if err := d.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("export to %s: %w", dir, err), d.close())
	}
	return d, nil
}

func (d *exportDir) begin() (err error) {
	if err := d.sweep(); err != nil {
		return err
	}
	// Only another that sweeps just then can be faster, or it is a file system without locks: then they fail for whoever would remove the directory.
	const tries = 4
	for range tries {
		if d.lock != nil {
			_ = d.removeLock(d.temp, d.lock) // what is left of it the next export removes
		}
		d.temp = exportTemp + rand.Text()
		if d.lock, err = d.openLock(d.temp, os.O_CREATE|os.O_EXCL); err != nil {
			return err
		}
		if d.holds() {
			break
		}
	}
	return d.root.Mkdir(d.temp, 0o700)
}

// holds takes the lock, and reports whether it is still there then.
func (d *exportDir) holds() bool {
	if lockFile(d.lock) != nil {
		return false
	}
	held, err := d.lock.Stat()
	if err != nil {
		return false
	}
	there, err := d.root.Lstat(d.temp + exportLock)
	return err == nil && os.SameFile(held, there)
}

func (d *exportDir) openLock(temp string, flag int) (*os.File, error) {
	return d.root.OpenFile(temp+exportLock, os.O_RDWR|syscall.O_NONBLOCK|flag, 0o600) // nor does it wait at a FIFO that somebody put there
}

// sweep removes what exports left that were killed, if it may: what stays is named by an import.
func (d *exportDir) sweep() error {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		temp, isLock := strings.CutSuffix(e.Name(), exportLock)
		switch {
		case !strings.HasPrefix(temp, exportTemp):
		case e.IsDir() && !isLock:
			d.sweepOne(temp, os.O_CREATE) // there is no lock if the export was killed while it removed them
		case e.Type().IsRegular() && isLock:
			d.sweepOne(temp, 0)
		}
	}
	return nil
}

// sweepOne removes an export's directory and lock if that is free.
func (d *exportDir) sweepOne(temp string, flag int) {
	lock, err := d.openLock(temp, flag)
	if err != nil {
		return
	}
	if lockFile(lock) == nil {
		_ = d.remove(temp, lock)
	} else {
		_ = lock.Close() // nothing was written
	}
}

// remove removes an export's directory and lock.
func (d *exportDir) remove(temp string, lock *os.File) error {
	return errors.Join(d.removeLock(temp, lock), d.root.RemoveAll(temp))
}

// removeLock removes a lock while it is held: whoever gets it afterwards sees that it is not there any more.
func (d *exportDir) removeLock(temp string, lock *os.File) error {
	err := d.root.Remove(temp + exportLock)
	if errors.Is(err, fs.ErrNotExist) { // another export came before
		err = nil
	}
	return errors.Join(err, lock.Close())
}

// close removes what was not finished.
func (d *exportDir) close() error {
	var err error
	if d.lock != nil {
		err = d.remove(d.temp, d.lock)
	}
	return errors.Join(err, d.root.Close())
}

// folds reports whether the file system takes names that differ by case only for the same.
func (d *exportDir) folds() (bool, error) {
	probe := d.temp + "/case"
	f, err := d.root.OpenFile(probe, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false, err
	}
	if err := errors.Join(f.Close()); err != nil {
		return false, err
	}
	_, err = d.root.Lstat(d.temp + "/CASE")
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
		return false, d.root.Remove(probe)
	}
	return err == nil, errors.Join(err, d.root.Remove(probe))
}

// write writes a file in one step: under its name there is the old content or the new, never a part of it.
func (d *exportDir) write(name string, content []byte) error {
	if err := d.makeParents(path.Dir(name)); err != nil {
		return fmt.Errorf("make its directory: %w", err)
	}
	temp := fmt.Sprintf("%s/%d", d.temp, d.written.Add(1))
	f, err := d.root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = d.root.Rename(temp, filepath.FromSlash(name))
	}
	if err != nil {
		return errors.Join(err, d.root.Remove(temp))
	}
	return nil
}

func (d *exportDir) makeParents(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.made[dir] {
		return nil
	}
	if err := d.root.MkdirAll(filepath.FromSlash(dir), 0o777); err != nil {
		return err
	}
	d.made[strings.Clone(dir)] = true
	return nil
}
