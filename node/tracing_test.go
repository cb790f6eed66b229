package node_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"quorate/node"
	"quorate/node/raft"
	"quorate/telemetry"
)

// recordedBy has the nodes of a cluster record their spans, and begin traces of their own.
func recordedBy(c *cluster) *tracetest.InMemoryExporter {
	spans := tracetest.NewInMemoryExporter()
	tune := c.tune
	c.tune = func(cfg *node.Config) {
		if tune != nil {
			tune(cfg)
		}
		cfg.Telemetry = telemetry.New(telemetry.Options{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))})
	}
	return spans
}

// awaitBelow waits for a span that has one of each of the other names somewhere above it.
func awaitBelow(t *testing.T, spans *tracetest.InMemoryExporter, name string, above ...string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			seen := map[string]int{}
			for _, s := range spans.GetSpans() {
				seen[s.Name]++
			}
			t.Logf("there are %v", seen)
		}
	}()
	waitFor(t, fmt.Sprintf("a span %s below %v", name, above), func() bool { return isBelow(spans.GetSpans(), name, above) })
}

func isBelow(all tracetest.SpanStubs, name string, above []string) bool {
	byID := map[string]tracetest.SpanStub{}
	for _, s := range all {
		byID[s.SpanContext.SpanID().String()] = s
	}
	// leads follows the parents of a span, by their names, to the root of its trace.
	leads := func(at tracetest.SpanStub) bool {
		for _, want := range above {
			parent, ok := byID[at.Parent.SpanID().String()]
			if !ok || parent.Name != want || parent.EndTime.Before(parent.StartTime) {
				return false
			}
			at = parent
		}
		return !at.Parent.IsValid()
	}
	return slices.ContainsFunc(all, func(s tracetest.SpanStub) bool { return s.Name == name && leads(s) })
}

func TestAnElectionIsOneTraceWithItsVotes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	spans := recordedBy(c)
	for _, id := range c.members {
		c.start(id)
	}
	awaitBelow(t, spans, "raft.queue", "raft.vote", "raft.vote", "raft.election") // the voter's, the candidate's
}

func TestASnapshotIsTracedFromOfferToInstallation(t *testing.T) {
	t.Parallel()
	c := newStoringCluster(t, "n1", "n2", "n3")
	spans := recordedBy(c)
	for _, id := range c.members {
		c.start(id)
	}
	leader := c.leader()
	late := c.notLeading(leader)
	c.stop(late)
	c.fill(nil, 200)
	awaitBelow(t, spans, "raft.snapshot.upload", "raft.snapshot.build")
	c.purged(leader.Config().ID, 100)
	c.start(late)
	awaitBelow(t, spans, "raft.snapshot.fetch", "raft.install_snapshot", "raft.snapshot.offer")
	awaitBelow(t, spans, "raft.snapshot.install", "raft.install_snapshot", "raft.snapshot.offer")
}

// A change of the membership that is asked for at a follower is one trace: through the leader, both configurations, and every follower's disk.
func TestAChangeOfTheMembershipIsOneTrace(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	spans := recordedBy(c)
	c.start("n1", "n2", "n3")
	leader := c.leader()
	c.join("n4")
	asked := c.nodes[c.notLeading(leader)]
	if _, err := asked.Wait(within(t, 20*time.Second), func(s node.Status) bool { return s.Leader == leader.Config().ID }); err != nil {
		t.Fatal(err)
	}
	if _, err := asked.ChangeMembership(within(t, 20*time.Second), node.MembershipChange{Voters: []raft.NodeID{"n1", "n2", "n3", "n4"}}); err != nil {
		t.Fatal(err)
	}
	asks, leads := "raft.change_membership", "raft.change_membership" // at the follower, at the leader
	for _, name := range []string{"raft.queue", "raft.append", "raft.commit", "raft.apply"} {
		awaitBelow(t, spans, name, "raft.membership", leads, asks)
	}
	awaitBelow(t, spans, "raft.append", "raft.append_entries", "raft.replicate", "raft.membership", leads, asks)
	awaitBelow(t, spans, "raft.membership.settle", leads, asks)

	_, err := asked.ChangeMembership(within(t, 20*time.Second), node.MembershipChange{Voters: []raft.NodeID{"n1"}, If: &raft.LogID{Term: 99, Index: 99}})
	if err == nil {
		t.Fatal("a change of a membership that never was is made")
	}
	waitFor(t, "the error on the span", func() bool {
		for _, s := range spans.GetSpans() {
			if s.Name == leads && s.Status.Code == codes.Error && strings.Contains(s.Status.Description, "membership") {
				return true
			}
		}
		return false
	})
}

func TestAReadAtAFollowerIsOneTraceThroughTheLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	spans := recordedBy(c)
	c.start("n1", "n2", "n3")
	leader := c.leader()
	asked := c.nodes[c.notLeading(leader)]
	if _, err := asked.Wait(within(t, 20*time.Second), func(s node.Status) bool { return s.Leader == leader.Config().ID }); err != nil {
		t.Fatal(err)
	}
	if _, err := asked.ReadIndex(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	awaitBelow(t, spans, "raft.queue", "raft.read", "raft.read_index", "raft.read") // the leader's, the follower's
}
