package kv_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/objectstore"
	"quorate/transport/embednats"
)

func (c *cluster) store(id raft.NodeID) *kv.Store {
	c.t.Helper()
	store, err := kv.OpenStore(filepath.Join(c.dir, string(id), "state"), kv.StoreOptions{Logger: quiet})
	if err != nil {
		c.t.Fatal(err)
	}
	return store
}

func (c *cluster) survivor(id raft.NodeID) node.Survivor {
	return node.Survivor{Cluster: "test", ID: id, Dir: filepath.Join(c.dir, string(id), "log"), Logger: quiet}
}

// startStoring starts a cluster over a NATS server with JetStream.
func startStoring(t *testing.T, members ...raft.NodeID) *cluster {
	t.Helper()
	server, err := embednats.Start(embednats.Options{Port: -1, JetStream: true, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	c := &cluster{t: t, dir: t.TempDir(), server: server, members: members, nodes: map[raft.NodeID]*member{}}
	for _, id := range members {
		c.start(id)
	}
	return c
}

func TestASurvivorBeginsANewClusterWithAllThatItHas(t *testing.T) {
	t.Parallel()
	c := startStoring(t, "n1", "n2", "n3")
	client := c.client()
	ctx := within(t, 60*time.Second)
	var newest uint64
	for i := range 50 {
		var err error
		if newest, err = client.Put(ctx, fmt.Sprint("k", i), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.nodes["n1"].Wait(ctx, func(s node.Status) bool { return s.AppliedIndex >= newest }); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.nodes {
		m.stop()
	}
	look, err := node.Recover(ctx, c.survivor("n1"), c.store("n1"), true)
	if err != nil || look.Last.Index < newest || !strings.Contains(look.Membership, "n2") {
		t.Fatalf("%+v %v", look, err)
	}
	done, err := node.Recover(ctx, c.survivor("n1"), c.store("n1"), false)
	if err != nil || done.New == done.Old || done.Begin.Index <= newest+1<<31 {
		t.Fatalf("%+v %v", done, err)
	}
	c.members = nil
	c.start("n1")
	for i := range 50 {
		if entry, err := client.Get(ctx, fmt.Sprint("k", i)); err != nil || string(entry.Value) != fmt.Sprint(i) {
			t.Fatalf("%+v %v", entry, err)
		}
	}
	if revision, err := client.Put(ctx, "after", nil); err != nil || revision <= done.Begin.Index {
		t.Fatalf("revision %d (%v), the log begins after %v", revision, err, done.Begin)
	}
	// One of the old cluster cannot come back into it: nobody answers to the names that it knows, with their old incarnations.
	c.start("n2")
	if _, err := c.nodes["n2"].Wait(ctx, func(s node.Status) bool { return s.Role == node.RoleCandidate }); err != nil {
		t.Fatal(err)
	}
	if s := c.nodes["n1"].Status(); s.Role != node.RoleLeader || len(s.Members) != 1 {
		t.Fatalf("%+v", s)
	}
	c.nodes["n2"].stop()
	// With an empty directory it can.
	if err := os.RemoveAll(filepath.Join(c.dir, "n2")); err != nil {
		t.Fatal(err)
	}
	c.join("n2")
	if _, err := c.nodes["n1"].ChangeMembership(ctx, node.MembershipChange{Voters: []raft.NodeID{"n1", "n2"}}); err != nil {
		t.Fatal(err)
	}
	// Nobody else's directory is touched.
	if _, err := node.Recover(ctx, node.Survivor{Cluster: "other", ID: "n3", Dir: c.survivor("n3").Dir, Logger: quiet}, c.store("n3"), false); err == nil {
		t.Error("recovered as a node of another cluster")
	}
}

func TestEveryDiskLostAndTheStateIsRestoredFromItsSnapshot(t *testing.T) {
	t.Parallel()
	c := startStoring(t, "n1", "n2", "n3")
	client := c.client()
	ctx := within(t, 60*time.Second)
	var newest uint64
	for i := range 50 {
		var err error
		if newest, err = client.Put(ctx, fmt.Sprint("k", i), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	ref, err := c.nodes["n1"].Snapshot(ctx)
	if err != nil || ref.Last.Index < newest {
		t.Fatalf("%+v %v", ref, err)
	}
	id := c.nodes["n1"].ClusterID()
	for _, m := range c.nodes {
		m.stop()
	}
	if err := os.RemoveAll(c.dir); err != nil {
		t.Fatal(err)
	}
	bucket, err := objectstore.NewBucket(c.connect(), "quorate-test", id, objectstore.BucketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// By way of a backup file.
	file := filepath.Join(t.TempDir(), "backup")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(objectstore.Save(ctx, bucket, ref, out, objectstore.SaveOptions{}), out.Close()); err != nil {
		t.Fatal(err)
	}
	backup, err := objectstore.OpenFile(vfs.Default, file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = backup.Close() }()
	done, err := node.RestoreFrom(ctx, c.survivor("n1"), c.store("n1"), backup, backup.Ref(), 1<<20-4096)
	if err != nil || done.Begin.Index <= newest+1<<31 {
		t.Fatalf("%+v %v", done, err)
	}
	if _, err := node.RestoreFrom(ctx, c.survivor("n1"), c.store("n1"), backup, backup.Ref(), 1<<20-4096); err == nil {
		t.Error("restored over a state")
	}
	c.members = nil
	c.start("n1")
	c.join("n2", "n3")
	if _, err := c.nodes["n1"].Wait(ctx, func(s node.Status) bool { return s.Serving }); err != nil {
		t.Fatal(err)
	}
	if _, err := c.nodes["n1"].ChangeMembership(ctx, node.MembershipChange{Voters: []raft.NodeID{"n1", "n2", "n3"}}); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if entry, err := client.Get(ctx, fmt.Sprint("k", i), kv.FromNode("n3")); err != nil || string(entry.Value) != fmt.Sprint(i) {
			t.Fatalf("%+v %v", entry, err)
		}
	}
	if revision, err := client.Put(context.WithoutCancel(ctx), "after", nil); err != nil || revision <= done.Begin.Index {
		t.Fatalf("%d %v", revision, err)
	}
}

// cutOff restores all of the state, and ends before the log is of the new cluster.
type cutOff struct{ *kv.Store }

func (s cutOff) Restore(ctx context.Context, meta node.SnapshotMeta, r io.Reader) error {
	return errors.Join(s.Store.Restore(ctx, meta, r), errCutOff)
}

var errCutOff = errors.New("cut off")

func TestRestoreThatWasCutOffIsRunAgain(t *testing.T) {
	c := startStoring(t, "n1")
	client := c.client()
	ctx := within(t, 60*time.Second)
	var refs []storage.SnapshotRef
	for i := range 2 {
		if _, err := client.Put(ctx, fmt.Sprint("k", i), []byte("v")); err != nil {
			t.Fatal(err)
		}
		ref, err := c.nodes["n1"].Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	bucket, err := objectstore.NewBucket(c.connect(), "quorate-test", c.nodes["n1"].ClusterID(), objectstore.BucketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.nodes["n1"].stop()
	const limit = 1<<20 - 4096
	if _, err := node.RestoreFrom(ctx, c.survivor("n2"), cutOff{c.store("n2")}, bucket, refs[1], limit); !errors.Is(err, errCutOff) {
		t.Fatal(err)
	}
	// Another snapshot is no continuation, and another node is not this one.
	_, err = node.RestoreFrom(ctx, c.survivor("n2"), c.store("n2"), bucket, refs[0], limit)
	if err == nil || !strings.Contains(err.Error(), "remove the node's directory") {
		t.Errorf("another snapshot: %v", err)
	}
	other := c.survivor("n3")
	other.Dir = c.survivor("n2").Dir
	if _, err := node.RestoreFrom(ctx, other, c.store("n2"), bucket, refs[1], limit); err == nil {
		t.Error("another node went on")
	}
	if _, err := node.RestoreFrom(ctx, c.survivor("n2"), c.store("n2"), bucket, refs[1], limit); err != nil {
		t.Fatal(err)
	}
	c.members = nil
	c.start("n2")
	for i := range 2 {
		if entry, err := client.Get(ctx, fmt.Sprint("k", i)); err != nil || string(entry.Value) != "v" {
			t.Errorf("%+v %v", entry, err)
		}
	}
	// A node that has lost its log is none that was cut off.
	if _, err := client.Put(ctx, "after", nil); err != nil {
		t.Fatal(err)
	}
	c.nodes["n2"].stop()
	if err := os.RemoveAll(c.survivor("n2").Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := node.RestoreFrom(ctx, c.survivor("n2"), c.store("n2"), bucket, refs[1], limit); err == nil {
		t.Error("restored over a state")
	}
}

// What a cluster of a newer version has left is no beginning for one that is too old for it, which changes nothing of it.
func TestNothingNewerIsRecoveredOrRestored(t *testing.T) {
	c := startStoring(t)
	c.members = []raft.NodeID{"n1"}
	c.tune = func(cfg *node.Config) { cfg.CommandVersion = 1 }
	c.start("n1")
	ctx := within(t, 60*time.Second)
	client := c.client()
	if _, err := c.nodes["n1"].Wait(ctx, func(s node.Status) bool { return s.Versions.Command == 1 }); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(ctx, "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	ref, err := c.nodes["n1"].Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := objectstore.NewBucket(c.connect(), "quorate-test", c.nodes["n1"].ClusterID(), objectstore.BucketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.nodes["n1"].stop()
	wantUpgrade := func(id raft.NodeID, do func(old node.Survivor) error) {
		t.Helper()
		applied := func() node.Applied {
			store := c.store(id)
			defer func() { _ = store.Close() }()
			applied, err := store.Applied()
			if err != nil {
				t.Fatal(err)
			}
			return applied
		}
		before := applied()
		if err := do(c.survivor(id)); !errors.Is(err, node.ErrUpgrade) {
			t.Fatalf("%s: %v", id, err)
		}
		if after := applied(); after.Last != before.Last {
			t.Fatalf("%s: the state went from %v to %v", id, before.Last, after.Last)
		}
	}
	recoverIt := func(old node.Survivor) error {
		_, err := node.Recover(ctx, old, c.store(old.ID), false)
		return err
	}
	restoreIt := func(old node.Survivor) error {
		_, err := node.RestoreFrom(ctx, old, c.store(old.ID), bucket, ref, 1<<20-4096)
		return err
	}
	wantUpgrade("n1", recoverIt)
	if err := os.RemoveAll(filepath.Join(c.dir, "n1", "state")); err != nil {
		t.Fatal(err)
	}
	wantUpgrade("n1", recoverIt) // all of it is in the log
	wantUpgrade("n2", restoreIt)
	for id, do := range map[raft.NodeID]func(node.Survivor) error{"n1": recoverIt, "n2": restoreIt} {
		upgraded := c.survivor(id)
		upgraded.CommandVersion = 1
		if err := do(upgraded); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		c.members = nil
		c.start(id)
		if entry, err := client.Get(ctx, "k"); err != nil || string(entry.Value) != "v" {
			t.Fatalf("%s: %+v %v", id, entry, err)
		}
		c.nodes[id].stop()
	}
}

// TestAClusterThatWasGivenUpAndComesBackServesNobody while the one that took its place does, or the other way round: whoever serves first.
func TestAClusterThatWasGivenUpAndComesBackServesNobody(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1", "n2", "n3")
	ctx := within(t, 60*time.Second)
	if _, err := c.client().Put(ctx, "k", nil); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.nodes {
		m.stop()
	}
	if _, err := node.Recover(ctx, c.survivor("n1"), c.store("n1"), false); err != nil {
		t.Fatal(err)
	}
	c.members = nil
	for _, id := range []raft.NodeID{"n1", "n2", "n3"} {
		c.start(id)
	}
	again(t, "two leaders", func() bool {
		return c.nodes["n1"].Status().Serving && (c.nodes["n2"].Status().Serving || c.nodes["n3"].Status().Serving)
	})
	client := c.client()
	for i := range 200 {
		if _, err := client.Put(ctx, "k", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
		if e, err := client.Get(ctx, "k"); err != nil || string(e.Value) != fmt.Sprint(i) {
			t.Fatalf("%q (%v) after a put of %d", e.Value, err, i)
		}
	}
	// The other one is there as soon as it can be.
	first, err := client.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if first == "n1" {
		c.nodes["n1"].stop()
	} else {
		c.nodes["n2"].stop()
		c.nodes["n3"].stop()
	}
	again(t, "the other cluster to serve", func() bool {
		leader, err := client.Leader(within(t, time.Second))
		return err == nil && (leader == "n1") != (first == "n1")
	})
}
