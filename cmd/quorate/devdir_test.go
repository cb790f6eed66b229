package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quorate/node/raft"
)

func devWant(cluster string, nodes ...raft.NodeID) devLayout {
	return devLayout{Format: devFormat, Cluster: cluster, Nodes: nodes}
}

func reopen(t *testing.T, path string, want devLayout, insist ...string) (*devDir, error) {
	t.Helper()
	insisted := map[string]bool{}
	for _, flag := range insist {
		insisted[flag] = true
	}
	d, err := openDevDir(path, want, insisted)
	if err == nil {
		t.Cleanup(func() { _ = d.close() })
	}
	return d, err
}

func TestDevDirectoryKeepsItsLayout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new")
	d, err := reopen(t, path, devWant("dev", "n1", "n2", "n3"))
	if err != nil || !d.created {
		t.Fatal(err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}

	// Other defaults give way to the directory.
	d, err = reopen(t, path, devWant("dev", "n1"))
	if err != nil || d.created || !slices.Equal(d.layout.Nodes, []raft.NodeID{"n1", "n2", "n3"}) {
		t.Fatalf("%+v, %v", d, err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}

	// What the user says in so many words does not.
	if _, err := reopen(t, path, devWant("dev", "n1"), "nodes"); err == nil || !strings.Contains(err.Error(), "3 nodes (n1, n2, n3), not 1") {
		t.Errorf("another number of nodes: %v", err)
	}
	if _, err := reopen(t, path, devWant("other", "n1", "n2", "n3"), "cluster"); err == nil || !strings.Contains(err.Error(), "cluster dev, not other") {
		t.Errorf("another cluster: %v", err)
	}
	if _, err := reopen(t, path, devWant("dev", "n1", "n2", "n3"), "nodes", "cluster"); err != nil {
		t.Errorf("the same: %v", err)
	}
}

func TestDevDirectoryIsHeldByOneProcess(t *testing.T) {
	path := t.TempDir()
	if _, err := reopen(t, path, devWant("dev", "n1")); err != nil {
		t.Fatal(err)
	}
	if _, err := reopen(t, path, devWant("dev", "n1")); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("taken twice: %v", err)
	}
}

func TestForeignDevDirectoryIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ file, content, says string }{
		"somebody else's": {"thesis.tex", "", "not empty"},
		"damaged":         {devMarker, "{", "damaged"},
		"empty marker":    {devMarker, `{"format":1}`, "damaged"},
		"path in a name":  {devMarker, `{"format":1,"cluster":"dev","nodes":["../../x"]}`, "damaged"},
		"newer":           {devMarker, `{"format":2,"cluster":"dev","nodes":["n1"]}`, "format 2"},
	} {
		path := t.TempDir()
		write(t, filepath.Join(path, c.file), c.content)
		if _, err := reopen(t, path, devWant("dev", "n1")); err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v; want an error with %q", name, err, c.says)
		}
		if got := names(t, path); len(got) != 1 {
			t.Errorf("%s: the directory now has %q", name, got)
		}
	}
}

func TestEphemeralDevDirectoryIsRemoved(t *testing.T) {
	d, err := ephemeralDevDir(devWant("dev", "n1"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(d.node("n1"), "log", "x"), "data")
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.path); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestDefaultDevDirectory(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/state")
	if dir, err := defaultDevDir("dev"); err != nil || filepath.ToSlash(dir) != "/state/quorate/dev" {
		t.Errorf("%q, %v", dir, err)
	}
	t.Setenv("XDG_STATE_HOME", "relative")
	t.Setenv("HOME", "/home/u")
	if dir, err := defaultDevDir("test"); err != nil || filepath.ToSlash(dir) != "/home/u/.local/state/quorate/test" {
		t.Errorf("%q, %v", dir, err)
	}
}

func TestMemberDirectoryThatIsSomebodyElsesIsRefused(t *testing.T) {
	path := t.TempDir()
	write(t, filepath.Join(path, "thesis.tex"), "")
	if err := checkMemberDir(path); err == nil || !strings.Contains(err.Error(), "thesis.tex") {
		t.Errorf("somebody else's directory: %v", err)
	}
	write(t, filepath.Join(path, logDir, "x"), "")
	if err := checkMemberDir(path); err != nil {
		t.Errorf("a node's directory with a note in it: %v", err)
	}
	if err := checkMemberDir(filepath.Join(path, "new", "dir")); err != nil {
		t.Errorf("a new directory: %v", err)
	}
}

func TestDirectoriesThatMayNotBeUsedAreRefused(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may use every directory")
	}
	unreadable, fixed := filepath.Join(t.TempDir(), "unreadable"), filepath.Join(t.TempDir(), "fixed")
	for dir, mode := range map[string]os.FileMode{unreadable: 0, fixed: 0o500} {
		if err := os.Mkdir(dir, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := openDevDir(dir, devWant("dev", "n1"), nil); !errors.Is(err, fs.ErrPermission) || strings.Contains(err.Error(), "in use") {
			t.Errorf("dev cluster in %s: %v", dir, err)
		}
	}
	for _, dir := range []string{unreadable, filepath.Join(fixed, "new")} {
		if err := checkMemberDir(dir); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), dir) {
			t.Errorf("node in %s: %v", dir, err)
		}
	}
}
