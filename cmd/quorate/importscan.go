package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"quorate/node/kv"
)

// importFile is a file to store: its path relative to the directory, with slashes, and the key that it becomes.
type importFile struct {
	path string
	key  string
	size int64
}

// importPlan is what a directory holds, sorted out.
type importPlan struct {
	root    *os.Root // no link below it leads out of it, whatever changes after the listing
	files   []importFile
	skipped []itemRemark // never followed or read: neither files nor directories, and what exports did not finish
	refused []itemRemark // files whose path is no key
	failed  []itemRemark // what cannot be read
	bytes   int64
}

// itemRemark says of one file or key why it was not taken.
type itemRemark struct {
	Path   *string `json:"path,omitempty"`
	Raw    []byte  `json:"path_base64,omitempty"`
	Bytes  int64   `json:"bytes,omitempty"`
	Reason string  `json:"reason"`
}

func remark(path, format string, args ...any) itemRemark {
	r := itemRemark{Reason: fmt.Sprintf(format, args...)}
	r.Path, r.Raw = textOrBytes([]byte(path))
	return r
}

func (r itemRemark) path() string {
	if r.Path != nil {
		return *r.Path
	}
	return string(r.Raw)
}

// scanImport lists the regular files below dir. A file or directory that cannot be read is part of the plan, as
// failed; only if dir itself cannot be read is that an error. Whoever takes the plan closes its root.
func scanImport(dir, prefix string) (importPlan, error) {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return importPlan{}, usagef("import %s: %w", dir, err)
	}
	if info, err := os.Stat(root); err != nil {
		return importPlan{}, usagef("import %s: %w", dir, err)
	} else if !info.IsDir() {
		return importPlan{}, usagef("import %s: not a directory; `quorate put KEY - < FILE` stores one file", dir)
	}
	plan := importPlan{}
	if plan.root, err = os.OpenRoot(root); err != nil {
		return importPlan{}, fmt.Errorf("import %s: %w", dir, err)
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil && path == root {
			return err
		}
		relative, relErr := filepath.Rel(root, path)
		if relErr != nil {
			return relErr
		}
		return plan.take(filepath.ToSlash(relative), prefix, d, err)
	})
	if err != nil {
		return importPlan{}, errors.Join(fmt.Errorf("import %s: %w", dir, err), plan.root.Close())
	}
	return plan, nil
}

// take sorts one file or directory in. It returns fs.SkipDir for a directory whose files are none.
func (p *importPlan) take(path, prefix string, d fs.DirEntry, err error) error {
	switch {
	case err != nil:
		p.failed = append(p.failed, remark(path, "%v", err))
		return nil
	case strings.HasPrefix(d.Name(), exportTemp) && path != ".": // what the user named is meant
		p.skipped = append(p.skipped, remark(path, "unfinished files of an export"))
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	case d.IsDir():
		return nil
	case !d.Type().IsRegular():
		p.skipped = append(p.skipped, remark(path, "%s", special(d.Type())))
		return nil
	}
	info, err := d.Info()
	if err != nil {
		p.failed = append(p.failed, remark(path, "%v", err))
		return nil
	}
	key := prefix + path
	if len(key) > kv.MaxKeyBytes {
		p.refused = append(p.refused, remark(path, "its key would have %d bytes: the limit is %d", len(key), kv.MaxKeyBytes))
		return nil
	}
	p.files = append(p.files, importFile{path: path, key: key, size: info.Size()})
	p.bytes += info.Size()
	return nil
}

// special says what is no regular file.
func special(mode fs.FileMode) string {
	if mode&fs.ModeSymlink != 0 {
		return "symbolic link"
	}
	return fmt.Sprintf("not a regular file (%v)", mode.Type())
}

// changedError says that what was listed as a regular file is none any more.
type changedError struct{ what string }

func (e *changedError) Error() string { return "changed after it was listed: " + e.what }

// open opens a file that was listed.
func (p *importPlan) open(path string) (*os.File, error) {
	// It may have become a FIFO, which nobody may be writing: an open that waits for somebody hears no signal.
	f, err := p.root.OpenFile(filepath.FromSlash(path), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if now := p.changed(path, f); now != nil {
		err = now
	}
	if err != nil && f != nil {
		_ = f.Close() // nothing was read
		f = nil
	}
	return f, err
}

// changed returns a *changedError if something else has taken the place of the file, or a link that of a directory above it. What is gone,
// or may not be looked at, does not open either. f is what was opened, or nil.
func (p *importPlan) changed(path string, f *os.File) error {
	for end := range segmentEnds(path) {
		if info, err := p.root.Lstat(filepath.FromSlash(path[:end])); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return &changedError{path[:end] + " is a symbolic link"}
		}
	}
	info, err := p.root.Lstat(filepath.FromSlash(path))
	if err == nil && info.Mode().IsRegular() && f != nil {
		info, err = f.Stat() // it may have been something else when it was opened
	}
	if err == nil && !info.Mode().IsRegular() {
		return &changedError{special(info.Mode())}
	}
	return nil
}

// read returns the content of a file, or, when it has more bytes than the limit, only that this is so. *changedError: it is no file any more.
func (p *importPlan) read(file importFile, limit int) (content []byte, tooLarge bool, err error) {
	if file.size > int64(limit) {
		return nil, true, nil
	}
	f, err := p.open(file.path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close() // was only read
	// It may have grown since it was listed.
	content = make([]byte, 0, file.size+1)
	content, err = appendAll(content, io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, false, err
	}
	return content, len(content) > limit, nil
}

// appendAll reads r to its end behind what buf holds.
func appendAll(buf []byte, r io.Reader) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}
