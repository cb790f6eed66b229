package storagetest

import (
	"testing"

	"quorate/node/raft"
	"quorate/storage"
)

// check says that a store holds what the model says, now and after a restart.
func check(t *testing.T, disk Disk, store storage.LogStore, want model) {
	t.Helper()
	if d := want.difference(store); d != "" {
		t.Errorf("before a restart: %s", d)
	}
	store = reopened(t, disk, store)
	t.Cleanup(func() { _ = store.Close() })
	if d := want.difference(store); d != "" {
		t.Errorf("after a restart: %s", d)
	}
}

func testEmpty(t *testing.T, disk Disk) {
	store := opened(t, disk)
	if _, ok := store.Identity(); ok {
		t.Error("there is an identity")
	}
	if _, ok := store.Genesis(); ok {
		t.Error("there is a genesis")
	}
	if term, err := store.Term(0); term != 0 || err != nil {
		t.Errorf("the term at index 0 is %d, %v", term, err)
	}
	_, err := store.Term(1)
	wantError(t, "term at index 1", err, storage.ErrOutOfRange)
	_, err = store.Entries(nil, 1, 2, 1000)
	wantError(t, "entry 1", err, storage.ErrOutOfRange)
	check(t, disk, store, model{})
}

func testAppendAndRead(t *testing.T, disk Disk) {
	store, want := opened(t, disk), model{}
	membership := raft.Entry{
		ID: raft.LogID{Term: 2, Index: 4}, Kind: raft.EntryMembership,
		Membership: raft.NewMembership(raft.Peer{ID: "n1", Incarnation: 7}, raft.Peer{ID: "n2", Incarnation: 8}),
	}
	if err := storage.SealEntry(&membership); err != nil {
		t.Fatal(err)
	}
	for _, batch := range [][]raft.Entry{entries(t, 1, 1, 1), entries(t, 1, 2, 3), {membership}, {setting(t, 5, 5)}, entries(t, 5, 6, 40)} {
		w := storage.Write{Append: batch}
		want = want.write(w)
		commit := write(t, store, w)
		if d := want.difference(store); d != "" {
			t.Errorf("before it is durable: %s", d)
		}
		wait(t, commit)
	}
	for lo := uint64(1); lo <= 40; lo++ {
		for _, hi := range []uint64{lo + 1, lo + 2, 41, 42, storage.MaxIndex} {
			if d := want.differenceOfRead(store, lo, hi, 1<<30); d != "" {
				t.Error(d)
			}
		}
	}
	_, err := store.Entries(nil, 41, 42, 1000)
	wantError(t, "the entry after the last", err, storage.ErrOutOfRange)
	_, err = store.Term(41)
	wantError(t, "the term after the last", err, storage.ErrOutOfRange)
	if _, err := store.Entries(nil, 7, 7, 1000); err == nil {
		t.Error("an empty range can be read")
	}
	check(t, disk, store, want)
}

func testMaxBytes(t *testing.T, disk Disk) {
	store, want := opened(t, disk), model{}
	var list []raft.Entry
	for index := uint64(1); index <= 20; index++ {
		list = append(list, entry(t, 1, index, int(index*37%200)))
	}
	want = want.write(storage.Write{Append: list})
	writeAndWait(t, store, storage.Write{Append: list})
	for _, where := range []string{"in memory", "on disk"} {
		for lo := uint64(1); lo <= 20; lo++ {
			sum := 0
			for n := lo; n <= 20; n++ {
				sum += len(list[n-1].Raw)
				for _, maxBytes := range []int{sum - 1, sum, sum + 1} {
					if d := want.differenceOfRead(store, lo, 21, maxBytes); d != "" {
						t.Fatalf("%s: %s", where, d)
					}
				}
			}
			for _, maxBytes := range []int{0, 1, -1} { // one entry at least
				if d := want.differenceOfRead(store, lo, 21, maxBytes); d != "" {
					t.Fatalf("%s: %s", where, d)
				}
			}
		}
		store = reopened(t, disk, store)
	}
	_ = store.Close()
}

func testLargeEntries(t *testing.T, disk Disk) {
	store, want := opened(t, disk), model{}
	for index, n := range []int{1 << 20, 10, 5 << 20, 0, 3 << 20} {
		w := storage.Write{Append: []raft.Entry{entry(t, 1, uint64(index+1), n)}}
		want = want.write(w)
		writeAndWait(t, store, w)
	}
	check(t, disk, store, want)
}

func testRefusals(t *testing.T, disk Disk) {
	store, want := opened(t, disk), model{}
	base := storage.Write{Vote: &raft.Vote{Term: 3, For: "n1"}, Append: entries(t, 3, 1, 10)}
	writeAndWait(t, store, base)
	want = want.write(base)
	if err := store.Purge(raft.LogID{Term: 3, Index: 2}); err != nil {
		t.Fatal(err)
	}
	want = want.purge(raft.LogID{Term: 3, Index: 2})
	unsealed := raft.Entry{ID: raft.LogID{Term: 3, Index: 11}, Kind: raft.EntryBlank}
	vote := &raft.Vote{Term: 9, For: "n9"}
	for name, w := range map[string]storage.Write{
		"a gap":                           {Vote: vote, Append: entries(t, 3, 12, 13)},
		"entries that are there":          {Vote: vote, Append: entries(t, 3, 10, 11)},
		"a gap inside":                    {Vote: vote, Append: append(entries(t, 3, 11, 12), entries(t, 3, 14, 14)...)},
		"an older term":                   {Vote: vote, Append: entries(t, 2, 11, 11)},
		"an older term inside":            {Vote: vote, Append: append(entries(t, 4, 11, 11), entries(t, 3, 12, 12)...)},
		"an entry without its Raw form":   {Vote: vote, Append: []raft.Entry{unsealed}},
		"a gap after a truncation":        {Vote: vote, TruncateFrom: 5, Append: entries(t, 3, 6, 6)},
		"the old end after a truncation":  {Vote: vote, TruncateFrom: 5, Append: entries(t, 3, 11, 11)},
		"an older term after truncation":  {Vote: vote, TruncateFrom: 5, Append: entries(t, 2, 5, 5)},
		"a truncation of what is purged":  {Vote: vote, TruncateFrom: 2},
		"a truncation from the beginning": {Vote: vote, TruncateFrom: 1, Append: entries(t, 9, 1, 1)},
	} {
		if _, err := store.Write(w); err == nil {
			t.Fatalf("%s: accepted", name)
		}
		if d := want.difference(store); d != "" {
			t.Fatalf("%s: refused, but %s", name, d)
		}
	}
	next := storage.Write{Append: entries(t, 3, 11, 12)}
	writeAndWait(t, store, next) // refusals are not the end
	check(t, disk, store, want.write(next))
}

func testTruncate(t *testing.T, disk Disk) {
	store, want := opened(t, disk), model{}
	step := func(w storage.Write) {
		t.Helper()
		want = want.write(w)
		writeAndWait(t, store, w)
		if d := want.difference(store); d != "" {
			t.Fatal(d)
		}
	}
	step(storage.Write{Append: entries(t, 1, 1, 10)})
	step(storage.Write{TruncateFrom: 11}) // nothing is there
	step(storage.Write{TruncateFrom: 100})
	step(storage.Write{TruncateFrom: 10})
	_, err := store.Entries(nil, 10, 11, 1000)
	wantError(t, "a truncated entry", err, storage.ErrOutOfRange)
	_, err = store.Term(10)
	wantError(t, "a truncated entry's term", err, storage.ErrOutOfRange)
	step(storage.Write{TruncateFrom: 4})
	step(storage.Write{Append: entries(t, 2, 4, 6)})
	step(storage.Write{TruncateFrom: 1})
	step(storage.Write{Append: entries(t, 3, 1, 2)})
	check(t, disk, store, want)
}

// A setting is an entry like any other: it goes and stays with its place in the log.
func testSettings(t *testing.T, disk Disk) {
	store, want := open(t, disk), model{}
	defer func() { _ = store.Close() }()
	for _, w := range []storage.Write{
		{Append: []raft.Entry{setting(t, 1, 1), entry(t, 1, 2, 0), setting(t, 1, 3), entry(t, 1, 4, 0)}},
		{TruncateFrom: 3, Append: entries(t, 2, 3, 3)},              // a command takes its place
		{TruncateFrom: 3, Append: []raft.Entry{setting(t, 3, 3)}},   // and the other way round
		{Append: []raft.Entry{setting(t, 3, 4), entry(t, 3, 5, 0)}}, // the next one
		{TruncateFrom: 5, Append: []raft.Entry{setting(t, 4, 5)}},   // the last entry
		{Append: append(entries(t, 4, 6, 40), setting(t, 4, 41))},   // beyond what a window in memory may hold
		{TruncateFrom: 41},
	} {
		want = want.write(w)
		writeAndWait(t, store, w)
		if d := want.difference(store); d != "" {
			t.Fatal(d)
		}
		store = reopened(t, disk, store)
		if d := want.difference(store); d != "" {
			t.Fatalf("after a restart: %s", d)
		}
	}
	for _, upTo := range []raft.LogID{{Term: 1, Index: 1}, {Term: 3, Index: 3}, {Term: 3, Index: 4}, {Term: 4, Index: 6}} {
		want = want.purge(upTo)
		if err := store.Purge(upTo); err != nil {
			t.Fatal(err)
		}
		if d := want.difference(store); d != "" {
			t.Fatalf("purged up to %v: %s", upTo, d)
		}
	}
	check(t, disk, store, want)
}

func testTruncateAndAppend(t *testing.T, disk Disk) {
	store, want := open(t, disk), model{}
	defer func() { _ = store.Close() }()
	for round, restarts := range []bool{false, true} {
		term := uint64(10 * round)
		for _, w := range []storage.Write{
			{TruncateFrom: 1, Append: entries(t, term+1, 1, 10)},
			{TruncateFrom: 6, Append: entries(t, term+2, 6, 7)},    // shorter than it was
			{TruncateFrom: 3, Append: entries(t, term+3, 3, 20)},   // longer
			{TruncateFrom: 20, Append: entries(t, term+4, 20, 20)}, // as long
			{TruncateFrom: 1, Append: entries(t, term+5, 1, 3), Vote: &raft.Vote{Term: term + 5}},
		} {
			want = want.write(w)
			writeAndWait(t, store, w)
			if restarts { // what was deleted must not hide what was written after it, on disk either
				store = reopened(t, disk, store)
			}
			if d := want.difference(store); d != "" {
				t.Fatalf("with restarts %v: %s", restarts, d)
			}
		}
	}
}

func testEmptyWrite(t *testing.T, disk Disk) {
	store := opened(t, disk)
	writeAndWait(t, store, storage.Write{})
	w := storage.Write{Append: entries(t, 1, 1, 3)}
	commit, empty := write(t, store, w), write(t, store, storage.Write{})
	wait(t, commit)
	wait(t, empty)
	check(t, disk, store, model{}.write(w))
}

func testClosed(t *testing.T, disk Disk) {
	store := open(t, disk)
	commit := write(t, store, storage.Write{Append: entries(t, 1, 1, 5)})
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	_ = commit.Wait() // may fail, but must return
	_, err := store.Write(storage.Write{Append: entries(t, 1, 6, 6)})
	wantError(t, "write", err, storage.ErrClosed)
	_, err = store.Entries(nil, 1, 2, 1000)
	wantError(t, "entries", err, storage.ErrClosed)
	_, err = store.Term(2)
	wantError(t, "term", err, storage.ErrClosed)
	wantError(t, "purge", store.Purge(raft.LogID{Term: 1, Index: 2}), storage.ErrClosed)
	wantError(t, "set identity", store.SetIdentity(someIdentity), storage.ErrClosed)
	wantError(t, "set genesis", store.SetGenesis(someGenesis), storage.ErrClosed)
	if err := store.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	again := opened(t, disk) // Close waits for what is under way
	if d := (model{}.write(storage.Write{Append: entries(t, 1, 1, 5)})).difference(again); d != "" {
		t.Error(d)
	}
}
