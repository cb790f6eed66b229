package node_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/raft"
)

// In whatever order the nodes are started, one that has lost its disk neither votes nor counts: it finds out that the cluster exists, stops, and
// says what to do. The others go on; with one of them alone there is no quorum, whether the empty directory is there or not.
func TestALostDiskIsNoticedInEveryOrderOfStarts(t *testing.T) {
	for _, lost := range []raft.NodeID{"n1", "n2"} { // n1 wrote the genesis
		for place := range 3 {
			t.Run(fmt.Sprintf("%s is started as number %d", lost, place+1), func(t *testing.T) {
				t.Parallel()
				c := newCluster(t, "n1", "n2", "n3")
				c.start("n1", "n2", "n3")
				c.propose("before")
				c.agree([]string{"before"})
				for _, id := range c.members {
					c.stop(id)
				}
				if err := os.RemoveAll(filepath.Join(c.dir, string(lost))); err != nil {
					t.Fatal(err)
				}
				order := slices.DeleteFunc(slices.Clone(c.members), func(id raft.NodeID) bool { return id == lost })
				order = slices.Insert(order, place, lost)
				var empty *node.Node
				ended := func() {
					t.Helper()
					select {
					case <-empty.Done():
					case <-time.After(30 * time.Second):
						t.Fatalf("%s goes on with an empty directory", lost)
					}
					if err := empty.Err(); !errors.Is(err, node.ErrDiskLost) || !strings.Contains(err.Error(), "quorate member replace "+string(lost)) || !strings.Contains(err.Error(), "add it again") {
						t.Fatal(err)
					}
				}
				for i, id := range order {
					c.start(id)
					if id == lost {
						empty = c.nodes[id]
						delete(c.nodes, id)
					}
					if i == 1 && empty != nil { // it, and one other: no quorum
						ended()
						for id, n := range c.nodes {
							if s := n.Status(); s.Serving || s.Role == node.RoleLeader {
								t.Fatalf("%s leads with the voice of an empty directory", id)
							}
						}
					}
				}
				ended()
				c.propose("after")
				c.agree([]string{"before", "after"})
				// Started again, it says the same; a node with a new name takes its place.
				c.start(lost)
				empty = c.nodes[lost]
				delete(c.nodes, lost)
				ended()
				c.join("n4")
				voters := append(slices.DeleteFunc(slices.Clone(c.members), func(id raft.NodeID) bool { return id == lost }), "n4")
				if _, err := c.leader().ChangeMembership(within(t, 30*time.Second), node.MembershipChange{Voters: voters}); err != nil {
					t.Fatal(err)
				}
				c.propose("with n4")
				c.agree([]string{"before", "after", "with n4"})
			})
		}
	}
}

// A lost disk whose node is started to join waits to be added, and has no voice until it is; added, it is another one.
func TestALostDiskThatJoinsHasNoVoiceUntilItIsAddedAgain(t *testing.T) {
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	c.propose("before")
	leader := c.leader()
	lost := c.notLeading(leader)
	var other raft.NodeID
	for _, id := range c.members {
		if id != lost && id != leader.Config().ID {
			other = id
		}
	}
	incarnation := c.nodes[lost].Status().Incarnation
	c.stop(lost)
	if err := os.RemoveAll(filepath.Join(c.dir, string(lost))); err != nil {
		t.Fatal(err)
	}
	c.join(lost)
	c.propose("between")
	c.stop(other)
	// The leader and the empty directory are no quorum: the leader steps down, and nobody leads.
	if _, err := leader.Wait(within(t, 30*time.Second), func(s node.Status) bool { return s.Role != node.RoleLeader }); err != nil {
		t.Fatal(err)
	}
	if s := c.nodes[lost].Status(); s.Role != node.RoleWaiting || s.Term != 0 {
		t.Fatalf("it takes part: %+v", s)
	}
	c.start(other)
	seen := c.leader().Membership()
	if _, err := c.leader().ChangeMembership(within(t, 60*time.Second), node.MembershipChange{Voters: c.members, If: &seen.ID}); err != nil {
		t.Fatal(err)
	}
	c.propose("after")
	c.agree([]string{"before", "between", "after"})
	if s := c.nodes[lost].Status(); s.Incarnation == incarnation {
		t.Errorf("it has the incarnation %s of the directory that is lost", incarnation)
	}
}

// Whoever adds a member again that has just lost its disk is not told that it is one already: neither by a leader that has not noticed yet, nor
// before the node answers.
func TestALostDiskIsAddedAgainAtOnceOrRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	c.propose("before")
	leader := c.leader()
	lost := c.notLeading(leader)
	again := node.MembershipChange{Voters: c.members, Joining: []raft.NodeID{lost}}
	if _, err := leader.ChangeMembership(within(t, 30*time.Second), again); err != nil {
		t.Fatalf("it is well: %v", err)
	}
	c.stop(lost)
	if err := os.RemoveAll(filepath.Join(c.dir, string(lost))); err != nil {
		t.Fatal(err)
	}
	var gone *node.UnreachableError
	if _, err := leader.ChangeMembership(within(t, 30*time.Second), again); !errors.As(err, &gone) || gone.Node != lost || !gone.Member {
		t.Fatalf("added again while it does not answer: %v", err)
	}
	if m := leader.Membership(); !slices.Equal(m.Voters, c.members) {
		t.Fatalf("it is no voter any more: %+v", m)
	}

	for range 2 {
		c.join(lost)
		if _, err := leader.ChangeMembership(within(t, 30*time.Second), again); err != nil {
			t.Fatal(err)
		}
		// It comes to know that it votes.
		if _, err := c.nodes[lost].Wait(within(t, 30*time.Second), func(s node.Status) bool { return s.Role == node.RoleFollower }); err != nil {
			t.Fatal(err)
		}
		c.stop(lost)
		if err := os.RemoveAll(filepath.Join(c.dir, string(lost))); err != nil {
			t.Fatal(err)
		}
	}
}
