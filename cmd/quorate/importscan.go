package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

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
	root    string
	files   []importFile
	skipped []itemRemark // neither files nor directories: never followed or read
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
// failed; only if dir itself cannot be read is that an error.
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
	plan := importPlan{root: root}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil && path == root {
			return err
		}
		relative, relErr := filepath.Rel(root, path)
		if relErr != nil {
			return relErr
		}
		plan.take(filepath.ToSlash(relative), prefix, d, err)
		return nil
	})
	if err != nil {
		return importPlan{}, fmt.Errorf("import %s: %w", dir, err)
	}
	return plan, nil
}

func (p *importPlan) take(path, prefix string, d fs.DirEntry, err error) {
	switch {
	case err != nil:
		p.failed = append(p.failed, remark(path, "%v", err))
		return
	case d.IsDir():
		return
	case d.Type()&fs.ModeSymlink != 0:
		p.skipped = append(p.skipped, remark(path, "symbolic link"))
		return
	case !d.Type().IsRegular():
		p.skipped = append(p.skipped, remark(path, "not a regular file (%v)", d.Type()))
		return
	}
	info, err := d.Info()
	if err != nil {
		p.failed = append(p.failed, remark(path, "%v", err))
		return
	}
	key := prefix + path
	if len(key) > kv.MaxKeyBytes {
		p.refused = append(p.refused, remark(path, "its key would have %d bytes: the limit is %d", len(key), kv.MaxKeyBytes))
		return
	}
	p.files = append(p.files, importFile{path: path, key: key, size: info.Size()})
	p.bytes += info.Size()
}

// read returns the content of a file, or, when it has more bytes than the limit, only that this is so.
func (p *importPlan) read(file importFile, limit int) (content []byte, tooLarge bool, err error) {
	if file.size > int64(limit) {
		return nil, true, nil
	}
	f, err := os.Open(filepath.Join(p.root, filepath.FromSlash(file.path)))
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
