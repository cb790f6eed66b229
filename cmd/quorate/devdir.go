package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
)

// What is in a dev cluster's directory, beside a directory for each node and one for NATS.
const (
	devMarker = "dev.json"
	devLock   = "dev.lock"
)

// devFormat is the version of the directory's layout.
const devFormat = 1

// devLayout is what a dev cluster's directory says about itself.
type devLayout struct {
	Format  int           `json:"format"`
	Cluster string        `json:"cluster"`
	Nodes   []raft.NodeID `json:"nodes"`
}

// devDir is a dev cluster's directory, held by this process.
type devDir struct {
	path   string
	layout devLayout
	// created says that the directory was empty before.
	created bool
	// remove says that the directory goes when the cluster does.
	remove bool
	lock   io.Closer
}

// defaultDevDir is the cluster's directory in the user's state folder.
func defaultDevDir(cluster string) (string, error) {
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) { // relative ones are to be ignored, says XDG
		return filepath.Join(state, "quorate", cluster), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no place for the data: %w: name one with --dir, or use --ephemeral", err)
	}
	if runtime.GOOS == "windows" {
		if local := os.Getenv("LOCALAPPDATA"); local != "" {
			return filepath.Join(local, "quorate", cluster), nil
		}
	}
	return filepath.Join(home, ".local", "state", "quorate", cluster), nil
}

// ephemeralDevDir makes a directory that is removed by close.
func ephemeralDevDir(want devLayout) (*devDir, error) {
	path, err := os.MkdirTemp("", "quorate-dev-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary directory: %w", err)
	}
	d, err := openDevDir(path, want, nil)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(path))
	}
	d.remove = true
	return d, nil
}

// openDevDir takes the directory for this process and makes it if it is not there. want is the layout of a new one. An existing one is
// taken as it is; insist are the flags that the user gave, with which it has to agree.
func openDevDir(path string, want devLayout, insist map[string]bool) (*devDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the dev cluster: %w", err)
	}
	layout, err := readDevLayout(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := checkDevDirIsEmpty(path); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	lock, err := vfs.Default.Lock(filepath.Join(path, devLock))
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("lock directory %s: %w: the user who runs `quorate dev` must own it, or give another --dir", path, err)
	case err != nil:
		return nil, fmt.Errorf("directory %s is in use: another `quorate dev` runs on it: stop that one, or give this one another --dir: %w", path, err)
	}
	d := &devDir{path: path, lock: lock, layout: layout}
	// Again, now that nobody else can write it.
	d.layout, err = readDevLayout(path)
	if errors.Is(err, fs.ErrNotExist) {
		d.layout, d.created = want, true
		err = writeDevLayout(path, want)
	} else if err == nil {
		err = d.layout.agrees(path, want, insist)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

// close lets go of the directory. To call it again does nothing.
func (d *devDir) close() error {
	if d.lock == nil {
		return nil
	}
	err := d.lock.Close()
	d.lock = nil
	if d.remove {
		err = errors.Join(err, os.RemoveAll(d.path))
	}
	if err != nil {
		return fmt.Errorf("close directory %s: %w", d.path, err)
	}
	return nil
}

// forget makes the directory what it was, if it was empty before and no node has begun in it: what was asked for with a start that failed
// binds nobody.
func (d *devDir) forget() error {
	if !d.created || slices.ContainsFunc(d.layout.Nodes, func(id raft.NodeID) bool {
		_, err := os.Stat(d.node(id))
		return err == nil
	}) {
		return nil
	}
	err := errors.Join(os.RemoveAll(filepath.Join(d.path, natsDir)), os.Remove(filepath.Join(d.path, devMarker)))
	if err != nil {
		return fmt.Errorf("clear directory %s after a start that failed: %w", d.path, err)
	}
	return nil
}

func (d *devDir) node(id raft.NodeID) string { return filepath.Join(d.path, string(id)) }

func readDevLayout(path string) (devLayout, error) {
	file := filepath.Join(path, devMarker)
	content, err := os.ReadFile(file)
	if err != nil {
		return devLayout{}, fmt.Errorf("open the directory of the dev cluster: %w", err)
	}
	var layout devLayout
	if err := json.Unmarshal(content, &layout); err != nil {
		return devLayout{}, fmt.Errorf("%s is damaged: %w: give another --dir, or remove %s and the data with it", file, err, path)
	}
	if layout.Format != devFormat {
		return devLayout{}, fmt.Errorf("%s is of format %d, this version knows %d: use a newer quorate, or give another --dir", file, layout.Format, devFormat)
	}
	valid := natsToken.MatchString(layout.Cluster) && len(layout.Nodes) > 0
	for _, id := range layout.Nodes {
		valid = valid && natsToken.MatchString(string(id))
	}
	if !valid {
		return devLayout{}, fmt.Errorf("%s is damaged: it names cluster %q and nodes %q: give another --dir, or remove %s and the data with it",
			file, layout.Cluster, layout.Nodes, path)
	}
	return layout, nil
}

func writeDevLayout(path string, layout devLayout) error {
	content, err := json.Marshal(layout)
	if err != nil {
		return fmt.Errorf("encode %s: %w", devMarker, err)
	}
	temp := filepath.Join(path, devMarker+".tmp")
	err = errors.Join(os.WriteFile(temp, append(content, '\n'), 0o600), syncFile(temp))
	if err == nil {
		err = os.Rename(temp, filepath.Join(path, devMarker))
	}
	if err != nil {
		return fmt.Errorf("write the directory's %s: %w", devMarker, err)
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func checkDevDirIsEmpty(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("open the directory of the dev cluster: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); name != devLock && name != devMarker && name != devMarker+".tmp" {
			return fmt.Errorf("directory %s is not empty, and `quorate dev` did not make it: it has %s: give another --dir", path, name)
		}
	}
	return nil
}

// agrees checks the directory's layout against what the user asked for in so many words.
func (l devLayout) agrees(path string, want devLayout, insist map[string]bool) error {
	if insist["cluster"] && l.Cluster != want.Cluster {
		return usagef("directory %s is that of cluster %s, not %s: give another --dir, or --cluster %s", path, l.Cluster, want.Cluster, l.Cluster)
	}
	if insist["nodes"] && !slices.Equal(l.Nodes, want.Nodes) {
		return usagef("directory %s was made with %d nodes (%s), not %d: leave --nodes out, or give another --dir",
			path, len(l.Nodes), joinIDs(l.Nodes), len(want.Nodes))
	}
	return nil
}
