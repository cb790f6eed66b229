package pebblelog_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/pebblelog"
)

func openDB(t *testing.T, fs vfs.FS) *pebblelog.DB {
	t.Helper()
	db, err := pebblelog.Open("log", small(fs))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func group(t *testing.T, db *pebblelog.DB, name string) *pebblelog.Log {
	t.Helper()
	log, err := db.Group(name)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// TestGroupsAreApart writes several groups of one store at once, whose names are prefixes of one another, and finds each as if it were
// alone.
func TestGroupsAreApart(t *testing.T) {
	fs := vfs.NewMem()
	db := openDB(t, fs)
	names := []string{"a", "aa", "ab", "b", "ae", "\xff", strings.Repeat("x", 255)}
	var writers sync.WaitGroup
	for i, name := range names {
		log, term := group(t, db, name), uint64(i+1)
		writers.Go(func() {
			for n := range uint64(30) {
				commit, err := log.Write(storage.Write{Vote: &raft.Vote{Term: term}, Append: entries(t, term, 5*n+1, 5*n+5, 100)})
				if err == nil {
					err = commit.Wait()
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
			commit, err := log.Write(storage.Write{TruncateFrom: 150 - term})
			err = errors.Join(err, commit.Wait(), log.Purge(raft.LogID{Term: term, Index: 10 * term}))
			if err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	for range 2 {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = openDB(t, fs)
		for i, name := range names {
			log, term := group(t, db, name), uint64(i+1)
			first, last := raft.LogID{Term: term, Index: 10 * term}, raft.LogID{Term: term, Index: 149 - term}
			if log.Vote().Term != term || log.Purged() != first || log.Last() != last {
				t.Errorf("group %q: vote %v, purged %v, last %v", name, log.Vote(), log.Purged(), log.Last())
			}
			list, err := log.Entries(nil, first.Index+1, last.Index+1, 1<<20)
			if err != nil || len(list) != int(last.Index-first.Index) || list[0].ID.Term != term {
				t.Errorf("group %q: %d entries, %v", name, len(list), err)
			}
		}
	}
}

func TestGroupIsOpenOnce(t *testing.T) {
	db := openDB(t, vfs.NewMem())
	log := group(t, db, "g")
	if _, err := db.Group("g"); err == nil || !strings.Contains(err.Error(), "open already") {
		t.Errorf("got %v", err)
	}
	mustWrite(t, log, appendOf(t, 1, 1, 5))
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := log.Write(appendOf(t, 1, 6, 6)); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("a closed group took a write: %v", err)
	}
	again := group(t, db, "g")
	if err := log.Close(); err != nil { // once more: the group that is open now is another's
		t.Fatal(err)
	}
	if _, err := db.Group("g"); err == nil {
		t.Error("open twice")
	}
	if want := (raft.LogID{Term: 1, Index: 5}); again.Last() != want {
		t.Errorf("last %v", again.Last())
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Write(appendOf(t, 1, 6, 6)); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("a group of a closed store took a write: %v", err)
	}
	if _, err := db.Group("h"); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("a closed store opened a group: %v", err)
	}
}

func TestGroupNames(t *testing.T) {
	db := openDB(t, vfs.NewMem())
	for _, name := range []string{"", strings.Repeat("x", 256)} {
		if _, err := db.Group(name); err == nil {
			t.Errorf("a name of %d bytes is taken", len(name))
		}
	}
}

// TestCloseWaitsForReaders closes a store while it is read from disk.
func TestCloseWaitsForReaders(t *testing.T) {
	log := mustOpen(t, "log", small(vfs.NewMem()))
	mustWrite(t, log, storage.Write{Append: entries(t, 1, 1, 500, 100)})
	var readers sync.WaitGroup
	begun := make(chan struct{}, 4)
	for range 4 {
		readers.Go(func() {
			for n := 0; ; n++ {
				_, err := log.Entries(nil, 1, 400, 1<<20)
				if n == 0 {
					begun <- struct{}{}
				}
				if err == nil {
					_, err = log.Term(2)
				}
				if err != nil {
					if !errors.Is(err, storage.ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	for range 4 {
		<-begun
	}
	if err := log.Close(); err != nil {
		t.Error(err)
	}
	readers.Wait()
}

func ExampleOpenLog() {
	log, err := pebblelog.OpenLog("log", pebblelog.Options{FS: vfs.NewMem()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer log.Close()
	blank := raft.Entry{ID: raft.LogID{Term: 1, Index: 1}, Kind: raft.EntryBlank}
	if err := storage.SealEntry(&blank); err != nil {
		fmt.Println(err)
		return
	}
	commit, err := log.Write(storage.Write{Vote: &raft.Vote{Term: 1, For: "n1"}, Append: []raft.Entry{blank}})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := commit.Wait(); err != nil { // from here on it survives a loss of power
		fmt.Println(err)
		return
	}
	fmt.Println(log.Last(), log.Vote())
	// Output: 1.1 term 1 for n1
}
