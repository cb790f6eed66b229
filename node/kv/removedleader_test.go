package kv_test

import (
	"testing"
	"time"

	"quorate/node"
	"quorate/node/raft"
)

// TestALeaderThatIsRemovedSaysSo: it asks nobody for a vote, so nobody tells it.
func TestALeaderThatIsRemovedSaysSo(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1", "n2", "n3")
	ctx := within(t, 60*time.Second)
	s, err := c.nodes["n1"].Wait(ctx, func(s node.Status) bool { return s.Leader != "" })
	if err != nil {
		t.Fatal(err)
	}
	id := s.Leader
	if _, err := c.client().Put(ctx, "k", nil); err != nil { // it serves
		t.Fatal(err)
	}
	var others []raft.NodeID
	for _, other := range c.members {
		if other != id {
			others = append(others, other)
		}
	}
	if _, err := c.nodes[id].ChangeMembership(ctx, node.MembershipChange{Voters: others}); err != nil {
		t.Fatal(err)
	}
	removed := func(s node.Status) bool { return s.Removed && len(s.Warnings) > 0 }
	if s, err := c.nodes[id].Wait(ctx, removed); err != nil {
		t.Fatalf("%v: %+v", err, s)
	}
	c.nodes[id].stop()
	c.start(id)
	if s, err := c.nodes[id].Wait(ctx, removed); err != nil {
		t.Fatalf("after a restart: %v: %+v", err, s)
	}
	for _, other := range others {
		if c.nodes[other].Status().Removed {
			t.Errorf("%s says that it was removed", other)
		}
	}
}
