package pebblelog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/pebblelog"
)

func appendOf(t testing.TB, term, lo, hi uint64) storage.Write {
	t.Helper()
	return storage.Write{Append: entries(t, term, lo, hi, 20)}
}

// key is the key of an entry of the log that OpenLog opens, as the package comment lays it down.
func key(index uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte("\x01\x03loge"), index)
}

func recordKey(kind byte) []byte { return []byte("\x01\x03log" + string(kind)) }

// change changes what is stored behind the log's back.
func change(t *testing.T, fs vfs.FS, what func(db *pebble.DB) error) {
	t.Helper()
	db, err := pebble.Open("log", &pebble.Options{FS: fs, FormatMajorVersion: pebble.FormatNewest, Logger: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(what(db), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// stored makes a log of 200 entries, of which the window holds only the last few.
func stored(t *testing.T) vfs.FS {
	t.Helper()
	fs := vfs.NewMem()
	log := mustOpen(t, "log", small(fs))
	w := appendOf(t, 3, 1, 200)
	w.Vote = &raft.Vote{Term: 3, For: "n1"}
	mustWrite(t, log, w)
	if err := log.Purge(raft.LogID{Term: 3, Index: 10}); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	return fs
}

func flipped(t *testing.T, db *pebble.DB, key []byte) error {
	t.Helper()
	value, closer, err := db.Get(key)
	if err != nil {
		return err
	}
	value = bytes.Clone(value)
	value[len(value)/2] ^= 4
	return errors.Join(closer.Close(), db.Set(key, value, pebble.Sync))
}

func TestDamagedEndIsRefusedAtOpen(t *testing.T) {
	for name, damage := range map[string]func(db *pebble.DB) error{
		"a flipped bit in the last entry":     func(db *pebble.DB) error { return flipped(t, db, key(200)) },
		"a flipped bit in one shortly before": func(db *pebble.DB) error { return flipped(t, db, key(195)) },
		"a flipped bit in the first entry":    func(db *pebble.DB) error { return flipped(t, db, key(11)) },
		"a missing entry near the end":        func(db *pebble.DB) error { return db.Delete(key(198), pebble.Sync) },
		"a missing first entry":               func(db *pebble.DB) error { return db.Delete(key(11), pebble.Sync) },
		"an entry after a gap":                func(db *pebble.DB) error { return db.Set(key(300), entries(t, 3, 300, 300, 0)[0].Raw, pebble.Sync) },
		"an entry in another's place":         func(db *pebble.DB) error { return db.Set(key(200), entries(t, 3, 199, 199, 0)[0].Raw, pebble.Sync) },
		"terms that go back":                  func(db *pebble.DB) error { return db.Set(key(200), entries(t, 2, 200, 200, 0)[0].Raw, pebble.Sync) },
		"an entry below the purged ones":      func(db *pebble.DB) error { return db.Set(key(5), entries(t, 3, 5, 5, 0)[0].Raw, pebble.Sync) },
		"a damaged vote":                      func(db *pebble.DB) error { return db.Set(recordKey('v'), []byte{0xff}, pebble.Sync) },
		"a damaged purge mark":                func(db *pebble.DB) error { return db.Set(recordKey('p'), []byte{0xff}, pebble.Sync) },
		"a damaged identity":                  func(db *pebble.DB) error { return db.Set(recordKey('i'), []byte{0xff}, pebble.Sync) },
		"a damaged genesis":                   func(db *pebble.DB) error { return db.Set(recordKey('g'), []byte{0xff}, pebble.Sync) },
	} {
		t.Run(name, func(t *testing.T) {
			fs := stored(t)
			change(t, fs, damage)
			log, err := pebblelog.OpenLog("log", small(fs))
			if err == nil {
				t.Fatal(errors.Join(errors.New("opened"), log.Close()))
			}
			if !errors.Is(err, storage.ErrCorrupt) || !strings.Contains(err.Error(), "restore this node from a backup") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestDamageInTheMiddleIsFoundWhenItIsRead(t *testing.T) {
	for name, damage := range map[string]func(db *pebble.DB) error{
		"a flipped bit":               func(db *pebble.DB) error { return flipped(t, db, key(50)) },
		"a missing entry":             func(db *pebble.DB) error { return db.Delete(key(50), pebble.Sync) },
		"an entry in another's place": func(db *pebble.DB) error { return db.Set(key(50), entries(t, 3, 51, 51, 0)[0].Raw, pebble.Sync) },
	} {
		t.Run(name, func(t *testing.T) {
			fs := stored(t)
			change(t, fs, damage)
			log := mustOpen(t, "log", small(fs))
			for _, lo := range []uint64{50, 45, 11} {
				if _, err := log.Entries(nil, lo, 60, 1<<20); !errors.Is(err, storage.ErrCorrupt) {
					t.Errorf("entries from %d: %v", lo, err)
				}
			}
			if _, err := log.Term(50); !errors.Is(err, storage.ErrCorrupt) {
				t.Errorf("term: %v", err)
			}
			for _, lo := range []uint64{11, 51} {
				if list, err := log.Entries(nil, lo, min(lo+39, 201), 1<<20); err != nil || len(list) != 39 {
					t.Errorf("entries from %d, around it: %d, %v", lo, len(list), err)
				}
			}
		})
	}
}
