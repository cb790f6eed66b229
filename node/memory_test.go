package node_test

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/objectstore"
	"quorate/transport"
	"quorate/transport/memnet"
)

// overMemory has the nodes that are started from now on talk over a network in memory.
func (c *cluster) overMemory(tune func(*node.Config)) *memnet.Network {
	network := memnet.New(1)
	c.tune = func(cfg *node.Config) {
		tune(cfg)
		logger := cfg.Logger
		cfg.Transport = func(self raft.Peer, boot uint64) (transport.Transport, error) {
			return network.Join(self, boot, logger), nil
		}
	}
	return network
}

// storingInMemory is overMemory with snapshots every few entries, in a directory that all share.
func (c *cluster) storingInMemory() *memnet.Network {
	shared := objectstore.NewDirectory(vfs.Default, c.t.TempDir())
	return c.overMemory(func(cfg *node.Config) { cfg.SnapshotEntries, cfg.KeepEntries, cfg.Snapshots = 50, 10, shared })
}

// patient is for a node that leads alone, and is kept busy for long.
func patient(cfg *node.Config) { cfg.ElectionTimeout = 20 * time.Second }

// cut has nobody hear a member, nor be heard by it.
func (c *cluster) cut(network *memnet.Network, from raft.NodeID) {
	for _, id := range c.members {
		network.Cut(from, id)
		network.Cut(id, from)
	}
}

// cutOff has a member fall behind what the others keep of their logs. It returns how far its log goes, and all commands.
func (c *cluster) cutOff(network *memnet.Network, late raft.NodeID, want []string) (behind uint64, all []string) {
	c.t.Helper()
	c.cut(network, late)
	behind = c.nodes[late].Status().LastIndex
	all = c.fill(want, 200)
	c.purged(c.leader().Config().ID, behind+50)
	return behind, all
}

// awaitEnd waits until a call ends, with whatever error.
func awaitEnd(t *testing.T, what string, ended <-chan error) {
	t.Helper()
	select {
	case err := <-ended:
		t.Logf("%s: %v", what, err)
	case <-time.After(20 * time.Second):
		t.Fatalf("%s still waits", what)
	}
}
