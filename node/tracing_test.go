package node_test

import (
	"testing"
	"time"

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
	deadline := time.Now().Add(20 * time.Second)
	for {
		all := spans.GetSpans()
		byID := map[string]tracetest.SpanStub{}
		for _, s := range all {
			byID[s.SpanContext.SpanID().String()] = s
		}
		for _, s := range all {
			if s.Name != name {
				continue
			}
			at, found := s, 0
			for found < len(above) {
				parent, ok := byID[at.Parent.SpanID().String()]
				if !ok || parent.Name != above[found] || parent.EndTime.Before(parent.StartTime) {
					break
				}
				at, found = parent, found+1
			}
			if found == len(above) && !at.Parent.IsValid() {
				return
			}
		}
		if time.Now().After(deadline) {
			seen := map[string]int{}
			for _, s := range all {
				seen[s.Name]++
			}
			t.Fatalf("there is no %s below %v; there are %v", name, above, seen)
		}
		time.Sleep(5 * time.Millisecond)
	}
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
	var late raft.NodeID
	for _, id := range c.members {
		if id != leader.Config().ID {
			late = id
		}
	}
	c.stop(late)
	c.fill(nil, 200)
	awaitBelow(t, spans, "raft.snapshot.upload", "raft.snapshot.build")
	c.purged(leader.Config().ID, 100)
	c.start(late)
	awaitBelow(t, spans, "raft.snapshot.fetch", "raft.install_snapshot", "raft.snapshot.offer")
	awaitBelow(t, spans, "raft.snapshot.install", "raft.install_snapshot", "raft.snapshot.offer")
}
