package node_test

import (
	"fmt"
	"slices"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"quorate/node"
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
	c := newCluster(t, "n1", "n2", "n3")
	spans := recordedBy(c)
	for _, id := range c.members {
		c.start(id)
	}
	awaitBelow(t, spans, "raft.queue", "raft.vote", "raft.vote", "raft.election") // the voter's, the candidate's
}

func TestASnapshotIsTracedFromOfferToInstallation(t *testing.T) {
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
