package storagetest

import (
	"testing"

	"quorate/node/raft"
	"quorate/storage"
)

func testReset(t *testing.T, newDisk Factory) {
	for name, to := range map[string]raft.LogID{
		"beyond the end":               {Term: 3, Index: 100},
		"another entry in the middle":  {Term: 3, Index: 5},
		"an entry of the log":          {Term: 2, Index: 5},
		"back, behind what was purged": {Term: 1, Index: 1},
	} {
		t.Run(name, func(t *testing.T) {
			disk := newDisk(t)
			store, want := opened(t, disk), model{}
			w := storage.Write{Vote: &raft.Vote{Term: 3, For: "n1"}, Append: entries(t, 2, 1, 10)}
			want = want.write(w)
			writeAndWait(t, store, w)
			upTo := raft.LogID{Term: 2, Index: 3}
			if err := store.Purge(upTo); err != nil {
				t.Fatal(err)
			}
			if err := store.Reset(to); err != nil {
				t.Fatal(err)
			}
			want.purged, want.entries = to, nil
			if d := want.difference(store); d != "" {
				t.Fatal(d)
			}
			store = reopened(t, disk, store)
			if d := want.difference(store); d != "" {
				t.Fatalf("after a restart: %s", d)
			}
			w = storage.Write{Append: entries(t, 4, to.Index+1, to.Index+5)}
			want = want.write(w)
			writeAndWait(t, store, w)
			check(t, disk, store, want)
		})
	}
	store := opened(t, newDisk(t))
	if err := store.Reset(raft.LogID{Term: 1, Index: 1 << 63}); err == nil {
		t.Error("reset to an absurd id")
	}
}
