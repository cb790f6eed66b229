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
)

// exportDir is the directory that an export writes to. Everything goes through an os.Root, so no path and no symbolic link
// that lies there leads out of it. Its methods are safe from several goroutines.
type exportDir struct {
	root *os.Root
	// temp is a directory in root for files that are being written.
	temp    string
	written atomic.Uint64

	mu   sync.Mutex // guards made
	made map[string]bool
}

// openExportDir makes the directory if it does not exist. What is in it stays, but files of the same names.
func openExportDir(dir string) (*exportDir, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("export to %s: %w", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("export to %s: %w", dir, err)
	}
	d := &exportDir{root: root, temp: ".quorate-export-" + rand.Text(), made: map[string]bool{".": true}}
	if err := root.Mkdir(d.temp, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("export to %s: %w", dir, err), root.Close())
	}
	return d, nil
}

// close removes what was not finished.
func (d *exportDir) close() error {
	return errors.Join(d.root.RemoveAll(d.temp), d.root.Close())
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
