package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
)

// exportPaths decides which file a key becomes. It is given the keys of one export in ascending order of their bytes, as
// the store lists them, and refuses those that cannot be files beside the others.
//
// That order puts a key before all those that have it as a directory ("a" before "a/b"), so of two keys that conflict the
// shorter one is the file.
type exportPaths struct {
	// prefix of the keys that is not part of the path.
	prefix string
	// folds says that the file system takes names that differ by case only for the same.
	folds bool
	// files and dirs hold the paths given out, folded if the file system folds: each with the path as it was written first.
	files map[string]string
	dirs  map[string]string
}

func newExportPaths(prefix string, folds bool) *exportPaths {
	return &exportPaths{prefix: prefix, folds: folds, files: map[string]string{}, dirs: map[string]string{}}
}

// take returns the path of the key's file, relative to the export's directory and with slashes; or why there can be none.
func (p *exportPaths) take(key string) (path string, err error) {
	path, ok := strings.CutPrefix(key, p.prefix)
	if !ok {
		return "", fmt.Errorf("the key does not begin with %s", printableKey(p.prefix))
	}
	if err := checkExportPath(path); err != nil {
		return "", err
	}
	name := p.fold(path)
	if other, taken := p.files[name]; taken {
		return "", fmt.Errorf("this file system takes its name for that of %s", printableKey(other))
	}
	if _, taken := p.dirs[name]; taken {
		return "", fmt.Errorf("there are keys below it, which make it a directory: a file cannot be both")
	}
	for end := range segmentEnds(path) {
		if other, taken := p.files[p.fold(path[:end])]; taken {
			return "", fmt.Errorf("%s is a key too: a file cannot be a directory", printableKey(p.prefix+other))
		}
	}
	for end := range segmentEnds(path) {
		p.dirs[p.fold(path[:end])] = path[:end]
	}
	p.files[name] = path
	return path, nil
}

func (p *exportPaths) fold(path string) string {
	if p.folds {
		return strings.ToLower(path)
	}
	return path
}

// segmentEnds yields the length of each directory that a path goes through: 1 and 3 for "a/b/c".
func segmentEnds(path string) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for i := range len(path) {
			if path[i] == '/' && !yield(i) {
				return
			}
		}
	}
}

// checkExportPath says why a path cannot be that of a file below a directory, if it cannot. A path that is none the wiser on one
// operating system than on another is judged by the one that this runs on.
func checkExportPath(path string) error {
	switch {
	case path == "":
		return errors.New("no file name is left")
	case strings.HasPrefix(path, "/"):
		return errors.New("it is an absolute path")
	case strings.HasSuffix(path, "/"):
		return errors.New("it ends with a slash, as only a directory does")
	case strings.Contains(path, "\x00"):
		return errors.New("it has a NUL byte")
	}
	for segment := range strings.SplitSeq(path, "/") {
		switch {
		case segment == "":
			return errors.New("it has an empty part between two slashes")
		case segment == "." || segment == "..":
			return fmt.Errorf("it has the part %q, which leads elsewhere", segment)
		case strings.HasPrefix(segment, exportTemp):
			return fmt.Errorf("it has a part that begins with %s, as the unfinished files of exports do", exportTemp)
		case len(segment) > maxFileName:
			return fmt.Errorf("it has a part of %d bytes: a file name has at most %d", len(segment), maxFileName)
		}
	}
	if runtime.GOOS == "windows" { // drive letters, backslashes, device names
		if _, err := filepath.Localize(path); err != nil {
			return errors.New("it is no file name on Windows")
		}
	}
	return nil
}

// maxFileName is the length of the longest file name, in bytes, on every file system in common use.
const maxFileName = 255
