package storagetest

import (
	"testing"

	"quorate/node/raft"
	"quorate/storage"
)

func testPurge(t *testing.T, disk Disk) {
	store, want := opened(t, disk), model{}
	append10 := func(term, lo uint64) {
		t.Helper()
		w := storage.Write{Append: entries(t, term, lo, lo+9)}
		want = want.write(w)
		writeAndWait(t, store, w)
	}
	purge := func(term, index uint64) {
		t.Helper()
		upTo := raft.LogID{Term: term, Index: index}
		if err := store.Purge(upTo); err != nil {
			t.Fatal(err)
		}
		want = want.purge(upTo)
		if d := want.difference(store); d != "" {
			t.Fatal(d)
		}
		for _, gone := range []uint64{1, index} {
			_, err := store.Entries(nil, gone, index+5, 1000)
			wantError(t, "a purged entry", err, storage.ErrPurged)
			if gone < index {
				_, err = store.Term(gone)
				wantError(t, "the term of a purged entry", err, storage.ErrPurged)
			}
		}
	}
	append10(1, 1)
	purge(1, 1)
	purge(1, 4)
	append10(2, 11)
	purge(2, 15)
	store = reopened(t, disk, store)
	if d := want.difference(store); d != "" {
		t.Fatalf("after a restart: %s", d)
	}
	purge(2, 20) // the whole log
	_, err := store.Entries(nil, 21, 22, 1000)
	wantError(t, "an entry of an empty log", err, storage.ErrOutOfRange)
	store = reopened(t, disk, store)
	if d := want.difference(store); d != "" {
		t.Fatalf("after the whole log was purged, and a restart: %s", d)
	}
	append10(3, 21)
	w := storage.Write{TruncateFrom: 21, Append: entries(t, 4, 21, 22)} // down to what was purged
	want = want.write(w)
	writeAndWait(t, store, w)
	check(t, disk, store, want)
}

func testPurgeRefusals(t *testing.T, disk Disk) {
	store, want := opened(t, disk), model{}
	if err := store.Purge(raft.LogID{Term: 1, Index: 1}); err == nil {
		t.Error("an empty log was purged")
	}
	w := storage.Write{Append: entries(t, 2, 1, 10)}
	want = want.write(w)
	writeAndWait(t, store, w)
	for name, upTo := range map[string]raft.LogID{
		"beyond the last":              {Term: 2, Index: 11},
		"another entry at that index":  {Term: 1, Index: 5},
		"another entry than the last":  {Term: 3, Index: 10},
		"absurd":                       {Term: 2, Index: storage.MaxIndex},
		"an id that cannot be encoded": {Term: 2, Index: 1 << 63},
	} {
		if err := store.Purge(upTo); err == nil {
			t.Errorf("%s: purged", name)
		}
		if d := want.difference(store); d != "" {
			t.Fatalf("%s: refused, but %s", name, d)
		}
	}
	for _, upTo := range []raft.LogID{{Term: 2, Index: 6}, {Term: 2, Index: 6}, {Term: 2, Index: 3}} { // again, and older: nothing to do
		if err := store.Purge(upTo); err != nil {
			t.Error(err)
		}
	}
	check(t, disk, store, want.purge(raft.LogID{Term: 2, Index: 6}))
}
