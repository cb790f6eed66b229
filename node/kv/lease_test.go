package kv_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/raft"
)

// setLease changes the setting of the cluster, asked of one node, and returns it.
func (c *cluster) setLease(at raft.NodeID, lease time.Duration) node.Setting {
	c.t.Helper()
	id, err := c.nodes[at].ChangeSetting(within(c.t, 30*time.Second), node.SettingChange{Lease: &lease})
	if err != nil {
		c.t.Fatal(err)
	}
	return node.Setting{ID: id, Lease: lease}
}

// again tries until it works: a lease takes a round to begin, and a busy machine may lose it for a moment.
func again(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	ctx := within(t, 30*time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("timed out: %s", what)
		}
	}
}

func TestLeaseReadsAreServedByTheLeaderAlone(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1", "n2", "n3")
	client := c.client()
	ctx := within(t, 60*time.Second)
	if _, err := client.Put(ctx, "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	get := func(options ...kv.ReadOption) (source kv.Source) {
		t.Helper()
		entry, err := client.Get(ctx, "k", append(options, kv.Lease(&source))...)
		if err != nil || string(entry.Value) != "v" || source.Node == "" {
			t.Fatalf("%q %v %+v", entry.Value, err, source)
		}
		return source
	}
	if source := get(); source.Leased {
		t.Fatalf("a lease in a cluster with instant failover: %+v", source)
	}
	c.setLease("n2", time.Second)
	again(t, "a get under the lease", func() bool { return get().Leased })
	again(t, "a list under the lease", func() bool {
		var source kv.Source
		for entry, err := range client.List(ctx, "", false, kv.Lease(&source)) {
			if err != nil || string(entry.Value) != "v" {
				t.Fatalf("%+v %v", entry, err)
			}
		}
		return source.Leased
	})
	// A node that does not lead asks the one that does.
	again(t, "gets at all nodes, the leader's under its lease", func() bool {
		leader, err := client.Leader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range c.members {
			if get(kv.FromNode(string(id))).Leased != (string(id) == leader) {
				return false
			}
		}
		return true
	})
}

func TestConsistencyOverPlainNATSIsAHeader(t *testing.T) {
	c := startCluster(t, "n1")
	ctx := within(t, 60*time.Second)
	if _, err := c.client().Put(ctx, "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	c.setLease("n1", time.Second)
	conn := c.connect()
	ask := func(consistency string) *nats.Msg {
		t.Helper()
		request := nats.NewMsg("quorate.test.kv.get.k")
		if consistency != "" {
			request.Header.Set(kv.HeaderConsistency, consistency)
		}
		reply, err := conn.RequestMsgWithContext(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	for _, name := range []string{"", "linearizable", "local", "lease"} {
		again(t, "an answer with consistency "+name, func() bool {
			reply := ask(name)
			return string(reply.Data) == "v" && reply.Header.Get(kv.HeaderConsistency) == name
		})
	}
	if code := ask("lucky").Header.Get("Nats-Service-Error-Code"); code != "400" {
		t.Errorf("error code %q", code)
	}
}

// The entry of the setting is purged: it is in a state on disk that was installed, and in one that begins a new cluster.
func TestSettingIsInTheStateOnDisk(t *testing.T) {
	t.Parallel()
	c := startStoring(t)
	c.members = []raft.NodeID{"n1", "n2", "n3"}
	c.tune = func(config *node.Config) { config.SnapshotEntries, config.KeepEntries = 1<<40, 10 }
	for _, id := range c.members {
		c.start(id)
	}
	client := c.client()
	ctx := within(t, 60*time.Second)
	c.put(ctx, client, 0, 1, "v")
	name, err := client.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	leader, away := raft.NodeID(name), raft.NodeID("n1")
	if leader == away {
		away = "n2"
	}
	c.nodes[away].stop()
	want := c.setLease(leader, 300*time.Millisecond)
	c.put(ctx, client, 0, 100, "v")
	ref, err := c.nodes[leader].Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	again(t, "the log to be purged", func() bool {
		purged, err := c.nodes[leader].Purge(ctx, ref.Last.Index)
		return err == nil && purged.Index > want.ID.Index
	})
	c.start(away)
	if status, err := c.nodes[away].Wait(ctx, func(s node.Status) bool { return s.Snapshot.InstalledIndex > 0 && s.Setting == want }); err != nil {
		t.Fatalf("%v: %+v", err, status)
	}
	c.nodes[away].stop()
	c.start(away)
	if got := c.nodes[away].Setting(); got != want {
		t.Errorf("%s starts with %+v, want %+v", away, got, want)
	}
	for _, m := range c.nodes {
		m.stop()
	}
	if _, err := node.Recover(ctx, c.survivor(away), c.store(away), false); err != nil {
		t.Fatal(err)
	}
	c.members = nil
	c.start(away)
	if got := c.nodes[away].Setting(); got != want {
		t.Errorf("after its recovery %s starts with %+v, want %+v", away, got, want)
	}
	again(t, "a read under the lease of the new cluster", func() bool {
		var source kv.Source
		entry, err := client.Get(ctx, "k000", kv.Lease(&source))
		if err != nil || string(entry.Value) != "v0" {
			t.Fatalf("%+v %v", entry, err)
		}
		return source.Leased
	})
}
