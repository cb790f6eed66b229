package node_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"quorate/node"
	"quorate/telemetry"
	"quorate/transport/embednats"
)

// TestALargeTraceStateDoesNotStopReplication: it comes from whoever may propose, and goes along with the entry to each follower.
func TestALargeTraceStateDoesNotStopReplication(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.tune = func(cfg *node.Config) {
		r := telemetry.NewRecorder(resource.Empty(), sdktrace.NewSimpleSpanProcessor(tracetest.NewInMemoryExporter()))
		cfg.Telemetry = telemetry.New(telemetry.Options{Recorder: r, NoRoots: true})
	}
	c.start("n1", "n2", "n3")
	leader := c.leader()
	var members []string
	for i := range 20 {
		members = append(members, fmt.Sprintf("k%d=%s", i, strings.Repeat("v", 250)))
	}
	state, err := trace.ParseTraceState(strings.Join(members, ","))
	if err != nil {
		t.Fatal(err)
	}
	ctx := trace.ContextWithRemoteSpanContext(within(t, 10*time.Second), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled, TraceState: state,
	}))
	if _, err := leader.Propose(ctx, make([]byte, leader.MaxCommandBytes())); err != nil {
		t.Error(err)
	}
	if _, err := leader.Propose(within(t, 10*time.Second), []byte("small, not traced")); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// shrink restarts the cluster's NATS server with another limit on messages.
func (c *cluster) shrink(maxPayload int) {
	c.t.Helper()
	port := c.server.Port()
	_ = c.server.Close()
	server, err := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: port, MaxPayload: maxPayload})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = server.Close() })
}

func TestAFollowerThatIsBehindIsServedAfterTheLimitSank(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.tune = func(cfg *node.Config) { cfg.ElectionTimeout = 3 * time.Second } // the server is back before that: the leader stays
	c.start("n1", "n2", "n3")
	leader := c.leader()
	late := c.notLeading(leader)
	c.stop(late)
	for range 200 {
		if _, err := leader.Propose(within(t, 10*time.Second), make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	c.shrink(64 << 10)
	c.start(late)
	if _, err := c.nodes[late].Wait(within(t, 30*time.Second), func(s node.Status) bool { return s.AppliedIndex > 200 }); err != nil {
		t.Fatal(err)
	}
}

// carries proposes a large command until it is done: a leader that is busy with it may lose its leadership, and the command with that.
func (c *cluster) carries(command []byte) {
	c.t.Helper()
	waitFor(c.t, fmt.Sprintf("a command of %d bytes", len(command)), func() bool {
		_, err := c.leader().Propose(within(c.t, 10*time.Second), command)
		if tooLarge := (*node.TooLargeError)(nil); errors.As(err, &tooLarge) {
			c.t.Fatal(err)
		}
		return err == nil
	})
}

func TestWhatTheServersDoNotCarryAnyMoreIsRefusedAndWarnedOf(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	limit := c.leader().MaxCommandBytes()
	c.shrink(limit) // without room for what surrounds the largest entry
	var leader *node.Node
	waitFor(t, "a leader on the new server", func() bool {
		leader = c.leader()
		_, err := leader.Propose(within(t, time.Second), []byte("x"))
		return err == nil
	})
	var tooLarge *node.TooLargeError
	if _, err := leader.Propose(within(t, 5*time.Second), make([]byte, limit)); !errors.As(err, &tooLarge) || tooLarge.Limit >= limit {
		t.Fatalf("the largest command: %v", err)
	}
	c.carries(make([]byte, tooLarge.Limit))
	if warnings := fmt.Sprint(leader.Status().Warnings); !strings.Contains(warnings, "max_payload") {
		t.Errorf("warnings: %s", warnings)
	}
}

// linkedServer starts a NATS server that is linked to others by routes.
func linkedServer(t *testing.T, name string, port, maxPayload int, routes ...string) *embednats.Server {
	t.Helper()
	s, err := embednats.Start(embednats.Options{
		Host: "127.0.0.1", Port: port, ServerName: name, ClusterName: "x", ClusterListen: "127.0.0.1:-1", Routes: routes, MaxPayload: maxPayload,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestALeaderWhoseServerOffersLessHandsOver, although it should lead more than the others.
func TestALeaderWhoseServerOffersLessHandsOver(t *testing.T) {
	t.Parallel()
	first := linkedServer(t, "first", -1, 1<<20)
	route := "nats://" + first.ClusterAddress()
	second := linkedServer(t, "second", -1, 1<<20, route)
	c := newCluster(t, "n1", "n2", "n3")
	c.tune = func(cfg *node.Config) {
		cfg.URL, cfg.NATSOptions = first.ClientURL(), []nats.Option{nats.IgnoreDiscoveredServers()}
		if cfg.ID == "n1" {
			cfg.URL, cfg.Priority = second.ClientURL(), 1
		}
	}
	c.start("n1", "n2", "n3")
	n1 := c.nodes["n1"]
	if _, err := n1.Wait(within(t, 30*time.Second), func(s node.Status) bool { return s.Serving }); err != nil {
		t.Fatal(err)
	}
	port := second.Port()
	_ = second.Close()
	linkedServer(t, "third", port, 64<<10, route)
	waitFor(t, "n1 to be back", func() bool { return n1.Status().NATS.Connected && len(n1.Status().Warnings) > 0 })
	waitFor(t, "n1 to lead", func() bool {
		_ = c.nodes["n2"].TransferLeadership(within(t, 10*time.Second), "n1")
		return n1.Status().Serving && c.nodes["n2"].Status().Leader == "n1" && c.nodes["n3"].Status().Leader == "n1"
	})
	if _, err := n1.Wait(within(t, 30*time.Second), func(s node.Status) bool { return s.Leader != "n1" && s.Leader != "" }); err != nil {
		t.Fatalf("it goes on leading: %v", err)
	}
	large := make([]byte, 100<<10)
	c.carries(large)
	var tooLarge *node.TooLargeError
	waitFor(t, "n1 to say that it cannot hand it on", func() bool { // it may not know of a leader just then
		_, err := n1.Propose(within(t, 10*time.Second), large)
		return errors.As(err, &tooLarge) && tooLarge.Limit < len(large)
	})
}
