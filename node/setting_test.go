package node_test

import (
	"errors"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/raft"
)

// setLease changes the setting of the cluster, asked of one node, and returns it.
func (c *cluster) setLease(at *node.Node, lease time.Duration) node.Setting {
	c.t.Helper()
	id, err := at.ChangeSetting(within(c.t, 20*time.Second), node.SettingChange{Lease: &lease})
	if err != nil {
		c.t.Fatal(err)
	}
	return node.Setting{ID: id, Lease: lease}
}

// wantSetting waits until nodes have a setting.
func (c *cluster) wantSetting(want node.Setting, ids ...raft.NodeID) {
	c.t.Helper()
	for _, id := range ids {
		if status, err := c.nodes[id].Wait(within(c.t, 20*time.Second), func(s node.Status) bool { return s.Setting == want }); err != nil {
			c.t.Fatalf("%s: %v: setting %+v, want %+v", id, err, status.Setting, want)
		}
	}
}

const someLease = 300 * time.Millisecond

func TestSettingIsChangedAtAnyNodeUnderConditions(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	leader := c.leader()
	if got := leader.Setting(); got != (node.Setting{}) {
		t.Fatalf("a new cluster has setting %+v", got)
	}
	follower := c.nodes[c.notLeading(leader)]
	first := c.setLease(follower, someLease)
	if got := leader.Setting(); got != first || first.ID.Index == 0 {
		t.Fatalf("the leader has %+v, the follower was told %+v", got, first)
	}
	c.wantSetting(first, c.members...)
	// What is in force changes nothing.
	if again := c.setLease(follower, someLease); again != first {
		t.Fatalf("the same setting again is %+v", again)
	}
	ctx := within(t, 20*time.Second)
	off := time.Duration(0)
	_, err := follower.ChangeSetting(ctx, node.SettingChange{Lease: &off, If: &raft.LogID{}})
	var changed *node.SettingChangedError
	if !errors.As(err, &changed) || changed.Current != first.ID {
		t.Fatalf("a change of a setting that is not in force any more: %v", err)
	}
	for _, bad := range []time.Duration{-1, time.Millisecond, time.Hour, raft.MaxLease + 1} {
		if _, err := follower.ChangeSetting(ctx, node.SettingChange{Lease: &bad}); !errors.Is(err, node.ErrConfig) {
			t.Errorf("a lease of %v: %v", bad, err)
		}
	}
	id, err := follower.ChangeSetting(ctx, node.SettingChange{Lease: &off, If: &first.ID})
	if err != nil {
		t.Fatal(err)
	}
	c.wantSetting(node.Setting{ID: id}, c.members...)
	c.propose("goes on")
}

func TestSettingSurvivesRestarts(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	want := c.setLease(c.leader(), someLease)
	c.wantSetting(want, c.members...)
	for _, id := range c.members {
		c.stop(id)
	}
	for _, id := range c.members {
		c.start(id)
		if got := c.nodes[id].Setting(); got != want { // before anybody can have told it
			t.Errorf("%s starts with %+v", id, got)
		}
	}
	c.propose("goes on")
	c.wantSetting(want, c.members...)
}

// The entry of the setting is purged: who was away, who is new and who restarts have it from a snapshot alone.
func TestSettingTravelsInSnapshots(t *testing.T) {
	t.Parallel()
	c := newStoringCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	away := c.notLeading(c.leader())
	c.stop(away)
	want := c.setLease(c.leader(), someLease)
	commands := c.fill(nil, 150)
	for id := range c.nodes {
		c.purged(id, want.ID.Index)
	}
	c.start(away)
	c.join("n4")
	if _, err := c.leader().AddLearner(within(t, 20*time.Second), "n4"); err != nil {
		t.Fatal(err)
	}
	c.wantSetting(want, "n1", "n2", "n3", "n4")
	for id := range c.nodes {
		c.holds(id, commands)
	}
	for _, id := range []raft.NodeID{away, "n4"} {
		if c.states[id].restored == 0 {
			t.Errorf("%s had the log although that was purged", id)
		}
	}
	all := append(c.members, "n4")
	for _, id := range all {
		c.stop(id)
	}
	for _, id := range all {
		c.join(id) // as members that were added: those who are in the genesis know it
		if got := c.nodes[id].Setting(); got != want {
			t.Errorf("%s starts with %+v", id, got)
		}
	}
	c.propose("goes on")
}
