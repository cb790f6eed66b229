package node_test

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/objectstore"
)

// gated holds a node's manifests back when it is shut, and notes what the node deletes.
type gated struct {
	objectstore.Blobs
	waiting chan struct{}

	mu      sync.Mutex
	gate    chan struct{}
	deleted []string
}

func (g *gated) shut() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	gate := make(chan struct{})
	g.gate = gate
	return func() { close(gate) }
}

func (g *gated) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	g.mu.Lock()
	gate := g.gate
	g.mu.Unlock()
	if gate != nil && strings.HasPrefix(name, "manifest-") {
		g.waiting <- struct{}{}
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return g.Blobs.Put(ctx, name, size, r)
}

func (g *gated) Delete(ctx context.Context, name string) error {
	g.mu.Lock()
	g.deleted = append(g.deleted, name)
	g.mu.Unlock()
	return g.Blobs.Delete(ctx, name)
}

func (g *gated) deletions() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.deleted)
}

// Only the leader deletes: the build of one that leads no more ends, and whoever waits for it gets the new leader's snapshot, or hears that
// this node does not lead.
func TestADeposedLeaderDeletesNothing(t *testing.T) {
	t.Parallel()
	for name, machine := range map[string]func(*journal) node.StateMachine{
		"in memory": func(j *journal) node.StateMachine { return j },
		"durable":   func(j *journal) node.StateMachine { return lasting{j} },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "n1", "n2", "n3")
			shared := objectstore.NewDirectory(vfs.NewMem(), "/shared")
			stores := map[raft.NodeID]*gated{}
			c.overMemory(func(cfg *node.Config) {
				cfg.SnapshotEntries, cfg.KeepEntries = 1<<40, 10
				stores[cfg.ID] = &gated{Blobs: shared, waiting: make(chan struct{}, 8)}
				cfg.Snapshots = stores[cfg.ID]
			})
			c.startAs(func(_ raft.NodeID, j *journal) node.StateMachine { return machine(j) }, c.members...)
			var want []string
			leader := c.leader()
			old, next := leader.Config().ID, c.notLeading(leader)
			snapshot := func(id raft.NodeID) {
				t.Helper()
				want = c.fill(want, 20)
				if _, err := c.nodes[id].Snapshot(within(t, 20*time.Second)); err != nil {
					t.Fatal(err)
				}
			}
			snapshot(old)
			snapshot(old)
			want = c.fill(want, 20)
			open := stores[old].shut()
			asked := make(chan error, 1)
			go func() {
				_, err := leader.Snapshot(within(t, 60*time.Second))
				asked <- err
			}()
			await(t, "a build of the old leader's", stores[old].waiting)
			if err := leader.TransferLeadership(within(t, 20*time.Second), next); err != nil {
				t.Fatal(err)
			}
			snapshot(next) // the new leader builds meanwhile
			snapshot(next)
			before := stores[old].deletions()
			open()
			awaitEnd(t, "the call for a snapshot of the old leader's", asked)
			status, err := leader.Wait(within(t, 20*time.Second), func(s node.Status) bool { return !s.Snapshot.Building })
			if err != nil || status.Snapshot.Problem != "" {
				t.Errorf("%v: %+v", err, status.Snapshot)
			}
			if after := stores[old].deletions()[len(before):]; len(after) > 0 {
				t.Errorf("%s leads since the last build of %s began, which has deleted %q", next, old, after)
			}
		})
	}
}

// A leader that comes back offers what is there now, not what it built in an earlier leadership and others have removed since.
func TestALeaderThatComesBackKnowsTheNewestSnapshot(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	log, shared := &said{}, objectstore.NewDirectory(vfs.NewMem(), "/shared")
	c.overMemory(func(cfg *node.Config) {
		cfg.SnapshotEntries, cfg.KeepEntries, cfg.Snapshots = 1<<40, 100, shared
		cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	})
	c.start(c.members...)
	want := c.fill(nil, 200)
	leads := func(id raft.NodeID) {
		t.Helper()
		if leader := c.leader(); leader != c.nodes[id] {
			if err := leader.TransferLeadership(within(t, 20*time.Second), id); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.nodes[id].Wait(within(t, 20*time.Second), func(s node.Status) bool { return s.Serving }); err != nil {
			t.Fatal(err)
		}
	}
	snapshot := func(id raft.NodeID) {
		t.Helper()
		want = c.fill(want, 10)
		if _, err := c.nodes[id].Snapshot(within(t, 20*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	leads("n1")
	snapshot("n1")
	leads("n2")
	for range 3 {
		snapshot("n2")
	}
	leads("n1")
	want = c.fill(want, 20)
	c.purged("n1", 50)
	c.join("n4")
	if _, err := c.nodes["n1"].AddLearner(within(t, 30*time.Second), "n4"); err != nil {
		t.Fatal(err)
	}
	c.holds("n4", want)
	if log.has("is damaged in the object store") {
		t.Error("nothing was damaged, but all was built and sent again")
	}
}
