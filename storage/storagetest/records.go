package storagetest

import (
	"testing"

	"quorate/node/raft"
	"quorate/storage"
)

var (
	someIdentity = storage.Identity{Cluster: "c", Peer: raft.Peer{ID: "n1", Incarnation: 0xfedcba9876543210}}
	someGenesis  = storage.NewGenesis("c", []raft.Peer{{ID: "n2", Incarnation: 2}, {ID: "n1", Incarnation: 0xfedcba9876543210}}, 1<<20)
)

func testVote(t *testing.T, disk Disk) {
	store, want := opened(t, disk), model{}
	for _, w := range []storage.Write{
		{Vote: &raft.Vote{Term: 1}},
		{Vote: &raft.Vote{Term: 1, For: "n1"}},
		{Append: entries(t, 1, 1, 3)}, // leaves it alone
		{Vote: &raft.Vote{Term: 7, For: "n2"}, Append: entries(t, 7, 4, 5)},
		{Vote: &raft.Vote{Term: 8}, TruncateFrom: 5},
	} {
		want = want.write(w)
		writeAndWait(t, store, w)
		if d := want.difference(store); d != "" {
			t.Fatal(d)
		}
	}
	check(t, disk, store, want)
}

func testIdentity(t *testing.T, disk Disk) {
	store := opened(t, disk)
	if err := store.SetIdentity(storage.Identity{}); err == nil {
		t.Error("an empty identity was set")
	}
	for _, what := range []string{"before", "after"} {
		if err := store.SetIdentity(someIdentity); err != nil {
			t.Fatalf("%s a restart: %v", what, err)
		}
		for _, other := range []storage.Identity{
			{Cluster: "other", Peer: someIdentity.Peer},
			{Cluster: "c", Peer: raft.Peer{ID: "n2", Incarnation: someIdentity.Peer.Incarnation}},
			{Cluster: "c", Peer: raft.Peer{ID: "n1", Incarnation: 1}},
		} {
			if err := store.SetIdentity(other); err == nil {
				t.Errorf("%s a restart: %v took its place", what, other)
			}
		}
		if got, ok := store.Identity(); !ok || got != someIdentity {
			t.Errorf("%s a restart: got %v", what, got)
		}
		store = reopened(t, disk, store)
	}
	_ = store.Close()
}

func testGenesis(t *testing.T, disk Disk) {
	store := opened(t, disk)
	if err := store.SetGenesis(storage.Genesis{}); err == nil {
		t.Error("an empty genesis was set")
	}
	for _, what := range []string{"before", "after"} {
		if err := store.SetGenesis(someGenesis); err != nil {
			t.Fatalf("%s a restart: %v", what, err)
		}
		for _, other := range []storage.Genesis{
			storage.NewGenesis("other", someGenesis.Members, 1<<20),
			storage.NewGenesis("c", someGenesis.Members, 1<<21),
			storage.NewGenesis("c", someGenesis.Members[:1], 1<<20),
		} {
			if err := store.SetGenesis(other); err == nil {
				t.Errorf("%s a restart: %v took its place", what, other)
			}
		}
		if got, ok := store.Genesis(); !ok || !got.Equal(someGenesis) || got.ClusterID() != someGenesis.ClusterID() {
			t.Errorf("%s a restart: got %v", what, got)
		}
		store = reopened(t, disk, store)
	}
	_ = store.Close()
}
