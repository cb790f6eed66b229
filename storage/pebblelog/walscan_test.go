package pebblelog_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/storage"
	"quorate/storage/pebblelog"
	"quorate/storage/storagetest"
)

// TestFlippedBitInTheWriteAheadLog says that damage to what was synced is not taken for a torn end: everything after it would be
// lost in silence, acknowledged as it is. Pebble alone finds no damage in the first log of a directory, none in a log's last block, and
// little behind large batches.
func TestFlippedBitInTheWriteAheadLog(t *testing.T) {
	for _, test := range []struct {
		name            string
		batch           uint64 // entries
		batches         int
		restart, closed bool
	}{
		{"small batches, first log of the directory", 5, 50, false, false},
		{"small batches", 5, 50, true, false},
		{"batches over several blocks", 180, 3, true, false},
		{"after a close", 5, 50, false, true},
		{"after a close, large batches", 180, 3, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			fs := storagetest.NewCrashable()
			log := mustOpen(t, "log", small(fs))
			if test.restart {
				if err := log.Close(); err != nil {
					t.Fatal(err)
				}
				log = mustOpen(t, "log", small(fs))
			}
			last := uint64(0)
			for range test.batches {
				mustWrite(t, log, storage.Write{Append: entries(t, 1, last+1, last+test.batch, 200)})
				last += test.batch
			}
			uncovered := int(test.batch)*260 + 100 // the last batch: no mark came after it
			if test.closed {
				uncovered = 100 // only the last mark itself
				if err := log.Close(); err != nil {
					t.Fatal(err)
				}
			}
			name, content := longestLog(t, fs.CrashClone(vfs.CrashCloneCfg{}))
			used := len(bytes.TrimRight(content, "\x00"))
			tried := 0
			for at := 3; at < used-uncovered; at += 499 {
				tried++
				damaged := fs.CrashClone(vfs.CrashCloneCfg{})
				overwrite(t, damaged, name, flip(content, at))
				log, err := pebblelog.OpenLog("log", small(damaged))
				if err == nil {
					t.Fatalf("byte %d of %d: the log ends at %d of %d, and nobody complains (%v)", at, used, log.Last().Index, last, log.Close())
				}
				if !strings.Contains(err.Error(), "restore this node from a backup") {
					t.Errorf("byte %d: %v", at, err)
				}
			}
			if tried < 50 {
				t.Errorf("only %d bytes were tried", tried)
			}
		})
	}
}

func flip(content []byte, at int) []byte {
	content = bytes.Clone(content)
	content[at] ^= 16
	return content
}

func longestLog(t testing.TB, fs vfs.FS) (name string, content []byte) {
	t.Helper()
	names, err := fs.List("log")
	if err != nil {
		t.Fatal(err)
	}
	used := 0
	for _, n := range names {
		if !strings.HasSuffix(n, ".log") {
			continue
		}
		file, err := fs.Open("log/" + n)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(file)
		if err := errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
		if length := len(bytes.TrimRight(b, "\x00")); length > used {
			name, content, used = "log/"+n, b, length
		}
	}
	return name, content
}

func overwrite(t testing.TB, fs vfs.FS, name string, content []byte) {
	t.Helper()
	file, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.Write(content)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		t.Fatal(err)
	}
}

// FuzzScanWriteAheadLogs gives the scanner a log of which bytes were changed: it may refuse it, but must neither panic nor refuse one
// that was not changed.
func FuzzScanWriteAheadLogs(f *testing.F) {
	fs := storagetest.NewCrashable()
	log, err := pebblelog.OpenLog("log", small(fs))
	if err != nil {
		f.Fatal(err)
	}
	for lo := uint64(1); lo < 1000; lo += 100 {
		mustWrite(f, log, storage.Write{Append: entries(f, 1, lo, lo+99, 50)})
	}
	left := fs.CrashClone(vfs.CrashCloneCfg{})
	if err := log.Close(); err != nil {
		f.Fatal(err)
	}
	name, content := longestLog(f, left)
	f.Add(uint(100), []byte{1, 2, 3})
	f.Add(uint(32<<10), bytes.Repeat([]byte{9}, 30))
	f.Fuzz(func(t *testing.T, at uint, change []byte) {
		changed := bytes.Clone(content)
		copy(changed[int(at%uint(len(changed))):], change)
		disk := vfs.NewMem()
		if err := disk.MkdirAll("log", 0o755); err != nil {
			t.Fatal(err)
		}
		overwrite(t, disk, name, changed)
		err := pebblelog.ScanWriteAheadLogs("log", disk)
		if bytes.Equal(changed, content) && err != nil {
			t.Fatalf("refused as it was: %v", err)
		}
		if err != nil && !errors.Is(err, storage.ErrCorrupt) {
			t.Fatalf("not ErrCorrupt: %v", err)
		}
	})
}

// FuzzScanAnything gives the scanner any bytes.
func FuzzScanAnything(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 40<<10))
	f.Add([]byte{1, 2, 3, 4, 30, 0, 9, 1, 0, 0, 0, 5, 5, 5, 5, 5, 5, 5, 5, 5})
	f.Fuzz(func(t *testing.T, content []byte) {
		disk := vfs.NewMem()
		if err := disk.MkdirAll("log", 0o755); err != nil {
			t.Fatal(err)
		}
		overwrite(t, disk, "log/000001.log", content)
		if err := pebblelog.ScanWriteAheadLogs("log", disk); err != nil && !errors.Is(err, storage.ErrCorrupt) {
			t.Fatalf("not ErrCorrupt: %v", err)
		}
	})
}
