package node_test

import (
	"context"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/objectstore"
	"quorate/transport"
	"quorate/transport/memnet"
)

// A node that is cut off while it builds a snapshot of its own, and then needs one of its leader's, ends the build and installs that. It builds
// again afterwards: if it took the build to go on for ever, it would never purge its log again.
func TestAnInstallationEndsABuildAndOthersFollow(t *testing.T) {
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
	state := c.states[late]
	begun, ended := make(chan struct{}, 8), make(chan struct{}, 8)
	state.mu.Lock()
	state.writing = func(ctx context.Context) error {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return ctx.Err()
	}
	state.mu.Unlock()
	want = c.fill(want, 60)
	await(t, "a build", begun)
	for _, id := range c.members {
		network.Cut(late, id)
		network.Cut(id, late)
	}
	behind := c.nodes[late].Status().LastIndex
	want = c.fill(want, 200)
	c.purged(c.leader().Config().ID, behind+50)
	state.mu.Lock()
	state.writing = nil
	state.mu.Unlock()
	network.Heal()
	await(t, "the end of the build", ended)
	c.holds(late, want)
	installed := c.nodes[late].Status().PurgedIndex
	if installed <= behind {
		t.Fatalf("the log was not replaced: it begins after %d, and went up to %d", installed, behind)
	}
	want = c.fill(want, 200)
	c.purged(late, installed+100)
	c.holds(late, want)
}

func await(t *testing.T, what string, happened <-chan struct{}) {
	t.Helper()
	select {
	case <-happened:
	case <-time.After(20 * time.Second):
		t.Fatalf("timed out waiting for %s", what)
	}
}
