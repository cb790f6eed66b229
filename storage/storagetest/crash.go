package storagetest

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"quorate/node/raft"
	"quorate/storage"
)

// survivals are how much of what was not synced survives a crash: nothing, some, nearly all, all.
var survivals = []int{0, 20, 50, 90, 100}

// crashed cuts the power and opens what is left.
func crashed(t fataler, disk CrashDisk, store storage.LogStore, survives int, seed uint64) storage.LogStore {
	t.Helper()
	disk.Crash(survives, rand.New(rand.NewPCG(seed, 0)))
	_ = store.Close() // of a process that is no more
	return open(t, disk)
}

func testCrashWaited(t *testing.T, disk CrashDisk) {
	store, m := open(t, disk), model{}
	defer func() { _ = store.Close() }()
	for n := range uint64(20) {
		w := storage.Write{Vote: &raft.Vote{Term: n + 1, For: "n1"}, Append: entries(t, n+1, 3*n+1, 3*n+3)}
		m = m.write(w)
		writeAndWait(t, store, w)
		store = crashed(t, disk, store, survivals[n%5], n)
		if d := m.difference(store); d != "" {
			t.Fatalf("after a crash that %d%% of what was not synced survived: %s", survivals[n%5], d)
		}
	}
}

func testCrashRecords(t *testing.T, disk CrashDisk) {
	store := open(t, disk)
	defer func() { _ = store.Close() }()
	if err := store.SetIdentity(someIdentity); err != nil {
		t.Fatal(err)
	}
	store = crashed(t, disk, store, 0, 1)
	if got, ok := store.Identity(); !ok || got != someIdentity {
		t.Errorf("the identity is %v, %v", got, ok)
	}
	if err := store.SetGenesis(someGenesis); err != nil {
		t.Fatal(err)
	}
	store = crashed(t, disk, store, 0, 2)
	if got, ok := store.Genesis(); !ok || !got.Equal(someGenesis) {
		t.Errorf("the genesis is %v, %v", got, ok)
	}
}

// testCrashAfterRestart says that what a store shows when it is opened is durable, though nobody ever waited for it: a node counts
// itself for it at once.
func testCrashAfterRestart(t *testing.T, disk CrashDisk) {
	store, m := open(t, disk), model{}
	defer func() { _ = store.Close() }()
	for n := range uint64(10) {
		w := storage.Write{Vote: &raft.Vote{Term: n + 1}, Append: entries(t, n+1, m.last().Index+1, m.last().Index+5)}
		write(t, store, w)
		// A process that is killed loses nothing that it wrote; and then the power goes.
		store = crashed(t, disk, store, 100, n)
		seen := m.write(w)
		if d := seen.difference(store); d != "" {
			seen = m
			if d := m.difference(store); d != "" {
				t.Fatalf("after a kill: %s", d)
			}
		}
		store = crashed(t, disk, store, 0, n)
		if d := seen.difference(store); d != "" {
			t.Fatalf("seen after a restart, and lost by a crash: %s", d)
		}
		m = seen
	}
}

// testCrashModel makes random writes, waits for some, and cuts the power now and then. What is left must be the state after some
// write that is not older than the last one waited for: never half a write, never one without those before it.
func testCrashModel(t *testing.T, newDisk Factory) {
	rapid.Check(t, func(rt *rapid.T) {
		disk := newDisk(t).(CrashDisk)
		store := open(rt, disk)
		defer func() { _ = store.Close() }()
		possible := []model{{}} // what a crash may leave, oldest first; the last one is what the store holds now
		var unwaited []storage.Commit
		var at []int // the place in possible of each of unwaited
		now := func() model { return possible[len(possible)-1] }
		rt.Repeat(map[string]func(*rapid.T){
			"write": func(rt *rapid.T) {
				w := drawWrite(rt, now())
				unwaited = append(unwaited, write(rt, store, w))
				possible = append(possible, now().write(w))
				at = append(at, len(possible)-1)
			},
			"wait": func(rt *rapid.T) {
				if len(unwaited) == 0 {
					rt.Skip("nothing to wait for")
				}
				n := rapid.IntRange(1, len(unwaited)).Draw(rt, "commits")
				for _, commit := range unwaited[:n] {
					wait(rt, commit)
				}
				gone := at[n-1]
				possible, unwaited, at = possible[gone:], unwaited[n:], at[n:]
				for i := range at {
					at[i] -= gone
				}
			},
			"purge": func(rt *rapid.T) {
				if len(now().entries) == 0 {
					rt.Skip("nothing to purge")
				}
				upTo := drawPurge(rt, now())
				if err := store.Purge(upTo); err != nil {
					rt.Fatalf("purge: %v", err)
				}
				possible = append(possible, now().purge(upTo))
			},
			"reset": func(rt *rapid.T) {
				m := now()
				to := raft.LogID{Term: m.last().Term + 1, Index: m.last().Index + rapid.Uint64Range(1, 20).Draw(rt, "beyond the end")}
				if err := store.Reset(to); err != nil {
					rt.Fatalf("reset: %v", err)
				}
				m.purged, m.entries = to, nil
				possible, unwaited, at = []model{m}, nil, nil // durable, and all before it
			},
			"restart": func(rt *rapid.T) {
				for _, commit := range unwaited {
					wait(rt, commit)
				}
				store = reopened(rt, disk, store)
				possible, unwaited, at = possible[len(possible)-1:], nil, nil
			},
			"crash": func(rt *rapid.T) {
				survives := rapid.SampledFrom(survivals).Draw(rt, "percent that survive")
				store = crashed(rt, disk, store, survives, rapid.Uint64().Draw(rt, "seed"))
				possible, unwaited, at = []model{left(rt, store, possible)}, nil, nil
			},
			"": func(rt *rapid.T) {
				if d := now().difference(store); d != "" {
					rt.Fatalf("%s", d)
				}
			},
		})
	})
}

// left finds which of the possible states a crash left.
func left(t fataler, store storage.LogStore, possible []model) model {
	t.Helper()
	for i := len(possible) - 1; i >= 0; i-- {
		if possible[i].difference(store) == "" {
			return possible[i]
		}
	}
	oldest, newest := possible[0], possible[len(possible)-1]
	t.Fatalf("after a crash the store is in none of %d states.\nIt is at least: %v\n     %s\nand at most:    %v\n     %s",
		len(possible), oldest, oldest.difference(store), newest, newest.difference(store))
	return model{}
}
