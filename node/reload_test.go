package node_test

import (
	"context"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/raft"
)

// TestSettingsAreReloadedWhileOthersWork: what works for RaftCore beside it does not read the settings that it changes. The race detector sees it.
func TestSettingsAreReloadedWhileOthersWork(t *testing.T) {
	t.Parallel()
	c := newStoringCluster(t, "n1", "n2", "n3")
	tune := c.tune
	c.tune = func(cfg *node.Config) {
		tune(cfg)
		cfg.Priority = map[raft.NodeID]int{"n2": 1}[cfg.ID]
	}
	c.start("n1", "n2", "n3")
	ctx := within(t, 60*time.Second)
	leader := c.leader()
	for leader.Config().ID == "n2" {
		if err := leader.TransferLeadership(ctx, "n1"); err != nil {
			t.Fatal(err)
		}
		leader = c.leader()
	}
	reloading, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for reloading.Err() == nil {
			if err := leader.Reload(reloading, node.Reloadable{MaxInFlight: 100}); err != nil && reloading.Err() == nil {
				t.Error(err)
			}
		}
	}()
	c.fill(nil, 10)
	if _, err := leader.Snapshot(ctx); err != nil { // a builder works
		t.Error(err)
	}
	// The leader asks the voters how much they should lead.
	if _, err := leader.Wait(ctx, func(s node.Status) bool { return s.Leader == "n2" }); err != nil {
		t.Error(err)
	}
	stop()
	<-ended
}
