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

// TestLeadsGoesByTheElectionTimeoutInForce: a node that serves beside RaftCore is told whether it may be sure to lead.
func TestLeadsGoesByTheElectionTimeoutInForce(t *testing.T) {
	t.Parallel()
	const short, long = 200 * time.Millisecond, time.Hour
	for name, test := range map[string]struct {
		before, after time.Duration
		want          bool
	}{
		"raised":  {before: short, after: long, want: true},
		"lowered": {before: long, after: short, want: false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newStoringCluster(t, "n1")
			tune := c.tune
			c.tune = func(cfg *node.Config) {
				tune(cfg)
				cfg.HeartbeatInterval, cfg.ElectionTimeout = short/10, test.before
			}
			c.start("n1")
			ctx := within(t, 60*time.Second)
			leader := c.leader()
			// Then it does not ask itself any more whether it is its own quorum.
			if err := leader.Switch(ctx, node.Switches{NoTicks: true}); err != nil {
				t.Fatal(err)
			}
			if err := leader.Reload(ctx, node.Reloadable{ElectionTimeout: test.after}); err != nil {
				t.Fatal(err)
			}
			for leader.Status().QuorumAckAge <= short {
				select {
				case <-time.After(short / 10):
				case <-ctx.Done():
					t.Fatal("time stands still")
				}
			}
			if got := leader.Leads(leader.Status().Term); got != test.want {
				t.Errorf("after %v it is sure to lead: %t", short, got)
			}
		})
	}
}
