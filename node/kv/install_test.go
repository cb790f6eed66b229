package kv_test

import (
	"fmt"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/raft"
)

// A snapshot of a state that is mostly unchanged sends what changed; a member that was away installs all layers, and has sessions,
// membership and every key after a restart.
func TestAMemberThatWasAwayInstallsLayers(t *testing.T) {
	t.Parallel()
	c := startStoring(t)
	c.members = []raft.NodeID{"n1", "n2", "n3"}
	c.tune = func(config *node.Config) {
		config.SnapshotEntries, config.KeepEntries = 1<<40, 10
		config.ElectionTimeout = 3 * time.Second // one node leads all along, also on a busy machine
	}
	for _, id := range c.members {
		c.start(id)
	}
	client := c.client()
	ctx := within(t, 60*time.Second)
	put := func(from, to int, value string) { c.put(ctx, client, from, to, value) }
	put(0, 10, "first")
	leader, err := client.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	away := raft.NodeID("n1")
	if leader == "n1" {
		away = "n2"
	}
	c.nodes[away].stop()
	put(0, 200, "first")
	whole, err := c.nodes[raft.NodeID(leader)].Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	put(50, 53, "second")
	if _, err := client.Delete(ctx, "k007"); err != nil {
		t.Fatal(err)
	}
	later, err := c.nodes[raft.NodeID(leader)].Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	status, err := c.nodes[raft.NodeID(leader)].Wait(ctx, func(s node.Status) bool { return s.Snapshot.Index == later.Last.Index })
	if err != nil || status.Snapshot.Sent*5 > whole.Bytes || status.Snapshot.Sent == 0 {
		t.Fatalf("%d bytes were sent for a change of 4 keys of 200, which have %d: %v", status.Snapshot.Sent, whole.Bytes, err)
	}
	if read := status.Snapshot.Read; read == 0 || read*5 > whole.Bytes {
		t.Errorf("%d bytes of %d were read for it", read, whole.Bytes)
	}
	again(t, "the log to be purged, as far as the state is durable", func() bool {
		purged, err := c.nodes[raft.NodeID(leader)].Purge(ctx, later.Last.Index)
		return err == nil && purged.Index >= whole.Last.Index
	})
	c.start(away)
	if _, err := c.nodes[away].Wait(ctx, func(s node.Status) bool { return s.Snapshot.InstalledIndex >= later.Last.Index }); err != nil {
		t.Fatalf("%v: %+v", err, c.nodes[away].Status())
	}
	check := func() {
		t.Helper()
		n := 0
		for entry, err := range client.List(ctx, "", false, kv.FromNode(string(away))) {
			want := "first"
			if entry.Key >= "k050" && entry.Key < "k053" {
				want = "second"
			}
			if n++; err != nil || entry.Key == "k007" || string(entry.Value) != fmt.Sprintf("%s%d", want, number(entry.Key)) {
				t.Fatalf("%+v %v", entry, err)
			}
		}
		if n != 199 {
			t.Fatalf("%d keys", n)
		}
	}
	check()
	// The session came along: the member can lead, and the client's writes go on in it.
	if err := c.nodes[away].TransferLeadership(ctx, away); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(ctx, "k000", []byte("first0")); err != nil {
		t.Fatal(err)
	}
	c.nodes[away].stop()
	c.start(away)
	if _, err := c.nodes[away].WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	check()
	if m := c.nodes[away].Membership(); len(m.Voters) != 3 {
		t.Errorf("%+v", m)
	}
}

func number(key string) (n int) {
	_, _ = fmt.Sscanf(key, "k%d", &n)
	return n
}
