package node_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/objectstore"
	"quorate/transport"
	"quorate/transport/memnet"
)

// stagingJournal prepares a restore, and is done with it when the node ends.
type stagingJournal struct {
	*journal
	staging   chan struct{}
	discarded *atomic.Int64
}

func (s stagingJournal) Stage(ctx context.Context, _ node.SnapshotMeta, r io.Reader) (node.Staged, error) {
	if _, err := io.ReadAll(r); err != nil {
		return nil, err
	}
	s.staging <- struct{}{}
	<-ctx.Done()
	return readyJournal{s.discarded}, nil // it was done just then
}

type readyJournal struct{ discarded *atomic.Int64 }

func (s readyJournal) Install() error { return errors.New("installed on a node that is closed") }
func (s readyJournal) Discard() error { s.discarded.Add(1); return nil }

// cutOff has a member fall behind what the others keep of their logs.
func (c *cluster) cutOff(network *memnet.Network, late raft.NodeID, want []string) []string {
	c.t.Helper()
	for _, id := range c.members {
		network.Cut(late, id)
		network.Cut(id, late)
	}
	behind := c.nodes[late].Status().LastIndex
	want = c.fill(want, 200)
	c.purged(c.leader().Config().ID, behind+50)
	return want
}

// TestAStagedStateIsDiscardedWhenTheNodeCloses: "Exactly one of its methods is called, once": also of what is ready when the node closes.
func TestAStagedStateIsDiscardedWhenTheNodeCloses(t *testing.T) {
	c := newCluster(t, "n1", "n2", "n3")
	network, shared := memnet.New(1), objectstore.NewDirectory(vfs.Default, t.TempDir())
	c.tune = func(cfg *node.Config) {
		cfg.SnapshotEntries, cfg.KeepEntries, cfg.Snapshots = 50, 10, shared
		logger := cfg.Logger
		cfg.Transport = func(self raft.Peer, boot uint64) (transport.Transport, error) {
			return network.Join(self, boot, logger), nil
		}
	}
	machines := map[raft.NodeID]stagingJournal{}
	for _, id := range c.members {
		m := stagingJournal{&journal{}, make(chan struct{}, 8), &atomic.Int64{}}
		n, err := node.Start(t.Context(), c.config(id), m)
		if err != nil {
			t.Fatal(err)
		}
		c.nodes[id], c.states[id], machines[id] = n, m.journal, m
		t.Cleanup(func() { _ = n.Close(context.Background()) })
	}
	want := c.fill(nil, 5)
	late := c.notLeading(c.leader())
	c.cutOff(network, late, want)
	network.Heal()
	await(t, "staging", machines[late].staging)
	if err := c.nodes[late].Close(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if n := machines[late].discarded.Load(); n != 1 {
		t.Fatalf("the node is closed, and the state that was ready was discarded %d times", n)
	}
}

// TestABuildThatAnInstallationEndsIsNoProblem: a build that an installation has ended is no problem that an operator must hear of.
func TestABuildThatAnInstallationEndsIsNoProblem(t *testing.T) {
	c := newCluster(t, "n1", "n2", "n3")
	network, shared := memnet.New(1), objectstore.NewDirectory(vfs.Default, t.TempDir())
	c.tune = func(cfg *node.Config) {
		cfg.SnapshotEntries, cfg.KeepEntries, cfg.Snapshots = 50, 10, shared
		logger := cfg.Logger
		cfg.Transport = func(self raft.Peer, boot uint64) (transport.Transport, error) {
			return network.Join(self, boot, logger), nil
		}
	}
	c.start(c.members...)
	want := c.fill(nil, 5)
	late := c.notLeading(c.leader())
	begun := c.states[late].hang()
	want = c.fill(want, 60)
	await(t, "a build", begun)
	want = c.cutOff(network, late, want)
	c.states[late].mu.Lock()
	c.states[late].writing = nil
	c.states[late].mu.Unlock()
	network.Heal()
	c.holds(late, want)
	s, err := c.nodes[late].Wait(within(t, 20*time.Second), func(s node.Status) bool { return !s.Snapshot.Building })
	if err != nil || s.Snapshot.Problem != "" {
		t.Fatalf("%q, warnings %q (%v)", s.Snapshot.Problem, s.Warnings, err)
	}
}
