package pebblelog_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/pebblelog"
)

// refused says that a directory is refused with a message that says so much, and that no file in it was changed.
func refused(t *testing.T, dir string, want ...string) {
	t.Helper()
	before := contents(t, dir)
	log, err := pebblelog.OpenLog(dir, small(vfs.Default))
	if err == nil {
		t.Fatal(errors.Join(errors.New("opened"), log.Close()))
	}
	for _, part := range append(want, dir) {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error lacks %q: %v", part, err)
		}
	}
	for name, content := range contents(t, dir) {
		if old, ok := before[name]; name != "LOCK" && (!ok || !bytes.Equal(old, content)) {
			t.Errorf("%s was changed, or is new", name)
		}
		delete(before, name)
	}
	for name := range before {
		t.Errorf("%s was removed", name)
	}
}

func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]byte{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found[filepath.Base(file)] = content
	}
	return found
}

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// foreignStore makes a Pebble store as another program might.
func foreignStore(t *testing.T, dir string, format pebble.FormatMajorVersion, key, value string) {
	t.Helper()
	db, err := pebble.Open(dir, &pebble.Options{FormatMajorVersion: format, Logger: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Set([]byte(key), []byte(value), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

func TestRefusesADirectoryOfSomethingElse(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "thesis.tex"), "years of work")
	refused(t, dir, `"thesis.tex"`, "empty one")
}

func TestRefusesAFileInPlaceOfADirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, "")
	if _, err := pebblelog.OpenLog(file, small(vfs.Default)); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v", err)
	}
}

func TestRefusesAStoreOfAnotherProgram(t *testing.T) {
	t.Run("of an older format, without upgrading it", func(t *testing.T) {
		dir := t.TempDir()
		foreignStore(t, dir, pebble.FormatColumnarBlocks, "their key", "their value")
		refused(t, dir, "another program", "empty directory")
	})
	t.Run("of the newest format", func(t *testing.T) {
		dir := t.TempDir()
		foreignStore(t, dir, pebble.FormatNewest, "their key", "their value")
		log, err := pebblelog.OpenLog(dir, small(vfs.Default))
		if err == nil {
			t.Fatal(errors.Join(errors.New("opened"), log.Close()))
		}
		if !strings.Contains(err.Error(), "another program") {
			t.Error(err)
		}
	})
}

func TestOpensAnOlderPebbleFormatOfOurs(t *testing.T) {
	dir := t.TempDir()
	foreignStore(t, dir, pebble.FormatWALSyncChunks, "\x00format", "1")
	log := mustOpen(t, dir, small(vfs.Default))
	mustWrite(t, log, storage.Write{Append: entries(t, 1, 1, 3, 0)})
}

func TestRefusesANewerFormat(t *testing.T) {
	dir := t.TempDir()
	foreignStore(t, dir, pebble.FormatNewest, "\x00format", "2")
	if _, err := pebblelog.OpenLog(dir, small(vfs.Default)); err == nil || !strings.Contains(err.Error(), `format "2"`) ||
		!strings.Contains(err.Error(), "start the version of Quorate that wrote it") {
		t.Errorf("got %v", err)
	}
}

func TestRefusesANewerFormatOfPebble(t *testing.T) {
	dir := t.TempDir()
	if err := mustOpen(t, dir, small(vfs.Default)).Close(); err != nil {
		t.Fatal(err)
	}
	markers, err := filepath.Glob(filepath.Join(dir, "marker.format-version.*"))
	if err != nil || len(markers) != 1 {
		t.Fatal(markers, err)
	}
	if err := os.Rename(markers[0], filepath.Join(dir, "marker.format-version.000099.099")); err != nil {
		t.Fatal(err)
	}
	refused(t, dir, "start the version of Quorate that wrote it")
}

func TestRefusesADirectoryWithoutItsManifest(t *testing.T) {
	// To begin anew where tables are would be to forget votes.
	dir := t.TempDir()
	log := mustOpen(t, dir, small(vfs.Default))
	mustWrite(t, log, storage.Write{Vote: &raft.Vote{Term: 5, For: "n1"}, Append: entries(t, 1, 1, 100, 100)})
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	markers, err := filepath.Glob(filepath.Join(dir, "marker.manifest.*"))
	if err != nil || len(markers) != 1 {
		t.Fatal(markers, err)
	}
	if err := os.Remove(markers[0]); err != nil {
		t.Fatal(err)
	}
	refused(t, dir, "damaged")
}

// The power may fail while a store is made, and leave the marker without the manifest: there was nothing yet, so it is made anew. Once
// there is data, a missing manifest is damage.
func TestMakesAStoreAnewThatWasTornInTheMaking(t *testing.T) {
	for _, withData := range []bool{false, true} {
		dir := t.TempDir()
		log := mustOpen(t, dir, small(vfs.Default))
		mustWrite(t, log, storage.Write{Append: entries(t, 1, 1, 10, 10)})
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		names, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			path := filepath.Join(dir, name.Name())
			switch {
			case strings.HasPrefix(name.Name(), "MANIFEST-"), !withData && strings.HasSuffix(name.Name(), ".sst"):
				err = os.Remove(path)
			case !withData && strings.HasSuffix(name.Name(), ".log"):
				err = os.Truncate(path, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if withData {
			refused(t, dir, "damaged")
			continue
		}
		log = mustOpen(t, dir, small(vfs.Default))
		if log.Last() != (raft.LogID{}) {
			t.Errorf("%v", log.Last())
		}
		mustWrite(t, log, storage.Write{Append: entries(t, 1, 1, 10, 10)})
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRefusesADirectoryInUse(t *testing.T) {
	t.Run("by this process", func(t *testing.T) {
		dir := t.TempDir()
		log := mustOpen(t, dir, small(vfs.Default))
		refused(t, dir, "in use", "stop that one first")
		mustWrite(t, log, storage.Write{Append: entries(t, 1, 1, 1, 0)}) // and this one is as well as before
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		mustOpen(t, dir, small(vfs.Default))
	})
	t.Run("by another process", func(t *testing.T) {
		dir := t.TempDir()
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestHoldsADirectory$")
		command.Env = append(os.Environ(), "PEBBLELOG_HOLD="+dir)
		input, err := command.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		output, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := output.Read(make([]byte, 1)); err != nil { // it has the directory
			t.Fatal(err)
		}
		refused(t, dir, "in use", "another process", "stop that one first")
		if err := errors.Join(input.Close(), command.Wait()); err != nil {
			t.Fatal(err)
		}
		mustOpen(t, dir, small(vfs.Default))
	})
}

// TestHoldsADirectory is the other process of TestRefusesADirectoryInUse.
func TestHoldsADirectory(t *testing.T) {
	dir := os.Getenv("PEBBLELOG_HOLD")
	if dir == "" {
		t.Skip("it runs in a process that TestRefusesADirectoryInUse starts")
	}
	log := mustOpen(t, dir, small(vfs.Default))
	fmt.Print("!")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the pipe is closed
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestMakesMissingDirectories(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	log := mustOpen(t, dir, small(vfs.Default))
	mustWrite(t, log, storage.Write{Append: entries(t, 1, 1, 1, 0)})
}

// forbidden is a disk whose files belong to another user.
type forbidden struct {
	vfs.FS
	operation string
}

func (f forbidden) List(dir string) ([]string, error) {
	if f.operation == "list" {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: fs.ErrPermission}
	}
	return f.FS.List(dir)
}

func (f forbidden) Lock(name string) (io.Closer, error) {
	if f.operation == "lock" {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return f.FS.Lock(name)
}

func TestRefusesADirectoryThatMayNotBeRead(t *testing.T) {
	for operation, says := range map[string]string{"list": "look into directory log", "lock": "must own the directory"} {
		log, err := pebblelog.OpenLog("log", small(forbidden{FS: vfs.NewMem(), operation: operation}))
		if err == nil {
			t.Fatalf("%s: opened (%v)", operation, log.Close())
		}
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "in use") {
			t.Errorf("%s: %v", operation, err)
		}
	}
}
