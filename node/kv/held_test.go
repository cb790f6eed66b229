package kv_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/raft"
)

// Without JetStream a member that was away gets the snapshot from the leader's directory; a part that is damaged there is built again.
func TestWithoutJetStreamAMemberThatWasAwayGetsTheSnapshotFromTheLeader(t *testing.T) {
	t.Parallel()
	for _, damaged := range []bool{false, true} {
		t.Run(fmt.Sprintf("damaged %v", damaged), func(t *testing.T) {
			c := startCluster(t)
			c.members = []raft.NodeID{"n1", "n2", "n3"}
			c.tune = func(config *node.Config) { config.SnapshotEntries, config.KeepEntries = 1<<40, 10 }
			for _, id := range c.members {
				c.start(id)
			}
			client := c.client()
			ctx := within(t, 60*time.Second)
			c.put(ctx, client, 0, 10, "v")
			id, err := client.Leader(ctx)
			if err != nil {
				t.Fatal(err)
			}
			leader := c.nodes[raft.NodeID(id)]
			away := raft.NodeID("n1")
			if id == "n1" {
				away = "n2"
			}
			c.nodes[away].stop()
			c.put(ctx, client, 10, 200, "v")
			ref, err := leader.Snapshot(ctx)
			if err != nil {
				t.Fatal(err)
			}
			status, err := leader.Wait(ctx, func(s node.Status) bool { return s.Snapshot.Index == ref.Last.Index && s.PurgedIndex >= 100 })
			if err != nil || !status.Snapshot.Held || status.Snapshot.Problem != "" {
				t.Fatalf("%v: %+v", err, leader.Status())
			}
			if damaged {
				flipPart(t, filepath.Join(c.dir, string(id), "log", "held-snapshots"))
			}
			c.start(away)
			if _, err := c.nodes[away].Wait(ctx, func(s node.Status) bool { return s.Snapshot.InstalledIndex >= ref.Last.Index }); err != nil {
				t.Fatalf("%v: %+v", err, c.nodes[away].Status())
			}
			n := 0
			for entry, err := range client.List(ctx, "", false, kv.FromNode(string(away))) {
				if err != nil || string(entry.Value) != fmt.Sprint("v", number(entry.Key)) {
					t.Fatalf("%+v %v", entry, err)
				}
				n++
			}
			if n != 200 {
				t.Errorf("%d keys", n)
			}
		})
	}
}

// flipPart flips a bit in each part of the snapshots in a directory.
func flipPart(t *testing.T, dir string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	flipped := 0
	for _, file := range files {
		if !strings.HasPrefix(file.Name(), "part-") {
			continue
		}
		path := filepath.Join(dir, file.Name())
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		flipped++
	}
	if flipped == 0 {
		t.Fatalf("no part in %s", dir)
	}
}
