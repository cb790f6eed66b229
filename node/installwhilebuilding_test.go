package node_test

import (
	"context"
	"testing"
	"time"

	"quorate/node"
)

// A node that is cut off while it builds a snapshot of its own, and then needs one of its leader's, ends the build and installs that. It builds
// again afterwards: if it took the build to go on for ever, it would never purge its log again.
func TestAnInstallationEndsABuildAndOthersFollow(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	network := c.storingInMemory()
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
	behind, want := c.cutOff(network, late, want)
	state.write()
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

// TestABuildThatAnInstallationEndsIsNoProblem that an operator must hear of.
func TestABuildThatAnInstallationEndsIsNoProblem(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	network := c.storingInMemory()
	c.start(c.members...)
	want := c.fill(nil, 5)
	late := c.notLeading(c.leader())
	begun := c.states[late].hang()
	want = c.fill(want, 60)
	await(t, "a build", begun)
	_, want = c.cutOff(network, late, want)
	c.states[late].write()
	network.Heal()
	c.holds(late, want)
	s, err := c.nodes[late].Wait(within(t, 20*time.Second), func(s node.Status) bool { return !s.Snapshot.Building })
	if err != nil || s.Snapshot.Problem != "" {
		t.Fatalf("%q, warnings %q (%v)", s.Snapshot.Problem, s.Warnings, err)
	}
}

func await(t *testing.T, what string, happened <-chan struct{}) {
	t.Helper()
	select {
	case <-happened:
	case <-time.After(20 * time.Second):
		t.Fatalf("timed out waiting for %s", what)
	}
}
