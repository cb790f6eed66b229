package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

func openDir(t *testing.T, path string) *exportDir {
	t.Helper()
	d, err := openExportDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.close() })
	return d
}

func TestExportedFilesReplaceOthersAndLeaveNothingBehind(t *testing.T) {
	root := filepath.Join(t.TempDir(), "new", "dir")
	d := openDir(t, root)
	for _, content := range []string{"first", "", "second"} {
		if err := d.write("a/b/c", []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, filepath.Join(root, "a/b/c")); got != content {
			t.Errorf("file has %q, want %q", got, content)
		}
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	if entries := names(t, root); len(entries) != 1 || entries[0] != "a" {
		t.Errorf("directory has %q, want only a", entries)
	}
}

// die leaves what a killed process does.
func die(t *testing.T, d *exportDir) {
	t.Helper()
	if err := errors.Join(d.lock.Close(), d.root.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestExportRemovesWhatAKilledOneLeft(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	killed, err := openExportDir(root)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, killed.temp, "1"), "half")
	die(t, killed)
	// Others may write into the directory, too: what only looks like a killed export leads nowhere.
	write(t, filepath.Join(outside, "victim"), "old")
	planted := exportTemp + strings.Repeat("A", 26)
	write(t, filepath.Join(root, planted, "x"), "")
	symlink(t, filepath.Join(outside, "victim"), filepath.Join(root, planted+exportLock))
	symlink(t, outside, filepath.Join(root, exportTemp+"link"))

	running := openDir(t, root)
	write(t, filepath.Join(root, running.temp, "other"), "half")
	if err := openDir(t, root).close(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, filepath.Join(root, running.temp)); len(got) != 1 {
		t.Errorf("an export that still runs has %q", got)
	}
	if err := running.write("a", []byte("content")); err != nil {
		t.Error(err)
	}
	if err := running.close(); err != nil {
		t.Fatal(err)
	}
	if got, want := names(t, root), []string{planted, planted + exportLock, exportTemp + "link", "a"}; !slices.Equal(got, want) {
		t.Errorf("directory has %q, want %q", got, want)
	}
	if got := read(t, filepath.Join(outside, "victim")); got != "old" {
		t.Errorf("file outside of the directory now has %q", got)
	}
}

func TestImportSkipsWhatAKilledExportLeft(t *testing.T) {
	root := t.TempDir()
	d, err := openExportDir(filepath.Join(root, "copy"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.write("a", nil); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "copy", d.temp, "1"), "half")
	die(t, d)
	plan, err := scan(t, root, "")
	if err != nil || len(plan.files) != 1 || plan.files[0].path != "copy/a" {
		t.Errorf("files %v, %v; want only copy/a", plan.files, err)
	}
	if len(plan.skipped) != 2 || plan.skipped[0].path() != "copy/"+d.temp || !strings.Contains(plan.skipped[0].Reason, "export") {
		t.Errorf("skipped %+v", plan.skipped)
	}
}

func TestExportNeverFollowsALinkOutOfTheDirectory(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	victim := filepath.Join(outside, "victim")
	write(t, victim, "old")
	symlink(t, outside, filepath.Join(root, "dir"))
	symlink(t, victim, filepath.Join(root, "file"))
	symlink(t, "..", filepath.Join(root, "up"))
	d := openDir(t, root)

	for _, name := range []string{"dir/victim", "dir/new", "up/new"} {
		if err := d.write(name, []byte("new")); err == nil {
			t.Errorf("write(%q) followed a link out of the directory", name)
		}
	}
	// The link itself is replaced, not what it points to.
	if err := d.write("file", []byte("new")); err != nil {
		t.Error(err)
	}
	if got := read(t, victim); got != "old" {
		t.Errorf("file outside of the directory now has %q", got)
	}
	if entries := names(t, outside); len(entries) != 1 {
		t.Errorf("outside of the directory there is now %q", entries)
	}
	if got := read(t, filepath.Join(root, "file")); got != "new" {
		t.Errorf("file has %q", got)
	}
}

func TestExportRefusesEscapesEvenIfPathsWereNotChecked(t *testing.T) {
	parent := t.TempDir()
	d := openDir(t, filepath.Join(parent, "dir"))
	for _, name := range []string{"../x", "/x", "a/../../x", filepath.Join(parent, "x")} {
		if err := d.write(name, []byte("new")); err == nil {
			t.Errorf("write(%q) succeeded", name)
		}
	}
	if entries := names(t, parent); len(entries) != 1 {
		t.Errorf("outside of the directory there is now %q", entries)
	}
}

func TestExportOntoADirectoryFails(t *testing.T) {
	root := t.TempDir()
	d := openDir(t, root)
	if err := os.MkdirAll(filepath.Join(root, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.write("a", nil); err == nil {
		t.Error("a directory was replaced by a file")
	}
	write(t, filepath.Join(root, "f"), "a file")
	if err := d.write("f/x", nil); err == nil {
		t.Error("a file was taken for a directory")
	}
}

func TestExportKnowsWhetherNamesFold(t *testing.T) {
	root := t.TempDir()
	d := openDir(t, root)
	folds, err := d.folds()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "probe"), "")
	_, err = os.Stat(filepath.Join(root, "PROBE"))
	if folds != (err == nil) {
		t.Errorf("folds = %t, but the file system says: %v", folds, err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestExportRemovesTheLockOfOneThatWasKilledBeforeItsDirectory(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	killed := exportTemp + strings.Repeat("B", 26)
	write(t, filepath.Join(root, killed+exportLock), "")
	planted := exportTemp + strings.Repeat("C", 26) + exportLock
	symlink(t, outside, filepath.Join(root, planted))
	if err := openDir(t, root).close(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, root); !slices.Equal(got, []string{planted}) {
		t.Errorf("directory has %q, want only the link", got)
	}
}

// Exports that begin at a time remove what others left, and never what is one's that has just begun.
func TestExportsThatBeginTogetherLeaveEachOtherAlone(t *testing.T) {
	root := t.TempDir()
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for j := range 50 {
				d, err := openExportDir(root)
				if err != nil {
					t.Error(err)
					return
				}
				err = d.write(strconv.Itoa(i), []byte(strconv.Itoa(j)))
				if err := errors.Join(err, d.close()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	if got := names(t, root); len(got) != 8 {
		t.Errorf("directory has %q", got)
	}
}
