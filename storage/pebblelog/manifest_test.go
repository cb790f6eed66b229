package pebblelog_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/pebblelog"
	"quorate/storage/storagetest"
)

// TestFlippedBitInTheManifest says that damage to the list of tables is not taken for a torn end: the tables after it would be deleted.
func TestFlippedBitInTheManifest(t *testing.T) {
	for _, test := range []struct {
		name   string
		after  bool // something was written since the start
		closed bool
	}{
		{"started", false, false}, {"started and closed", false, true}, {"started and written", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			fs := storagetest.NewCrashable()
			log := mustOpen(t, "log", small(fs))
			last := uint64(0)
			for range 3 { // each start turns the write-ahead log of the one before into a table, and says so in the manifest
				mustWrite(t, log, storage.Write{Append: entries(t, 1, last+1, last+50, 200), Vote: &raft.Vote{Term: 1 + last, For: "n1"}})
				last += 50
				if err := log.Close(); err != nil {
					t.Fatal(err)
				}
				log = mustOpen(t, "log", small(fs))
			}
			if test.after {
				mustWrite(t, log, storage.Write{Append: entries(t, 1, last+1, last+5, 200)})
				last += 5
			}
			if test.closed {
				if err := log.Close(); err != nil {
					t.Fatal(err)
				}
			}
			name, content := newestManifest(t, fs.CrashClone(vfs.CrashCloneCfg{}))
			for at := range content {
				damaged := fs.CrashClone(vfs.CrashCloneCfg{})
				overwrite(t, damaged, name, flip(content, at))
				log, err := pebblelog.OpenLog("log", small(damaged))
				if err == nil {
					t.Fatalf("byte %d of %d: the log ends at %d of %d with vote %v, and nobody complains (%v)", at, len(content), log.Last().Index, last, log.Vote(), log.Close())
				}
				if !strings.Contains(err.Error(), "restore this node from a backup") {
					t.Errorf("byte %d: %v", at, err)
				}
			}
			for length := range content { // torn: what was there stays, or it is refused
				torn := fs.CrashClone(vfs.CrashCloneCfg{})
				overwrite(t, torn, name, content[:length])
				log, err := pebblelog.OpenLog("log", small(torn))
				if err == nil {
					if err := log.Close(); err != nil {
						t.Errorf("%d bytes: close: %v", length, err)
					}
				} else if !strings.Contains(err.Error(), "restore this node from a backup") {
					t.Errorf("%d bytes: %v", length, err)
				}
			}
		})
	}
}

// TestATornEndOfTheManifestMayLackAnyPage: the pages of a file get to the disk in any order. A record begins anywhere in one.
func TestATornEndOfTheManifestMayLackAnyPage(t *testing.T) {
	const page = 4 << 10
	var content bytes.Buffer
	w := record.NewWriter(&content)
	for _, size := range []int{100, 5 * page} {
		if _, err := w.WriteRecord(bytes.Repeat([]byte{1}, size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	const second = 7 + 100 // a header, and the first record, which was there before
	for lost := 0; lost < content.Len(); lost += page {
		torn := bytes.Clone(content.Bytes())
		clear(torn[max(lost, second):min(lost+page, len(torn))])
		if at, damaged := pebblelog.ManifestDamage(torn); damaged {
			t.Errorf("without the page at %d: damaged at %d", lost, at)
		}
	}
}

func newestManifest(t testing.TB, fs vfs.FS) (name string, content []byte) {
	t.Helper()
	names, err := fs.List("log")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasPrefix(n, "marker.manifest.") {
			_, rest, _ := strings.Cut(strings.TrimPrefix(n, "marker.manifest."), ".")
			name = "log/" + rest
		}
	}
	file, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(file)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	return name, bytes.TrimRight(b, "\x00")
}

// FuzzManifestDamage: what is whole is never refused, cut anywhere; no bytes make it panic.
func FuzzManifestDamage(f *testing.F) {
	fs := vfs.NewMem()
	log := mustOpen(f, "log", small(fs))
	mustWrite(f, log, storage.Write{Append: entries(f, 1, 1, 50, 200)})
	if err := log.Close(); err != nil {
		f.Fatal(err)
	}
	_, whole := newestManifest(f, fs)
	f.Add([]byte{}, uint16(0))
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00"), uint16(3))
	f.Add(flip(whole, 2), uint16(20))
	f.Fuzz(func(t *testing.T, behind []byte, length uint16) {
		cut := whole[:min(int(length), len(whole))]
		if at, damaged := pebblelog.ManifestDamage(cut); damaged {
			t.Errorf("%d bytes of %d: damaged at %d", len(cut), len(whole), at)
		}
		pebblelog.ManifestDamage(append(cut[:len(cut):len(cut)], behind...))
		pebblelog.ManifestDamage(behind)
	})
}
