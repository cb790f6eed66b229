package node_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/pebblelog"
	"quorate/telemetry"
	"quorate/transport"
	"quorate/transport/memnet"
)

// meter collects the metrics of one node.
type meter struct {
	t      *testing.T
	reader *sdkmetric.ManualReader
}

// telemetry records to the meter, and traces only what is sampled already.
func (m *meter) telemetry() *telemetry.Telemetry {
	return telemetry.New(telemetry.Options{
		TracerProvider: sdktrace.NewTracerProvider(), NoRoots: true,
		MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(m.reader)),
	})
}

// figures are what was collected, by name and attributes: the value, and of a histogram how often something was measured. Traces are those
// that exemplars name, by the name of the metric.
type figures struct {
	values map[string]float64
	traces map[string][]string
}

func (m *meter) collect() figures {
	m.t.Helper()
	var all metricdata.ResourceMetrics
	if err := m.reader.Collect(context.Background(), &all); err != nil {
		m.t.Fatal(err)
	}
	f := figures{values: map[string]float64{}, traces: map[string][]string{}}
	key := func(name string, attributes attribute.Set) string {
		parts := []string{name}
		for _, a := range attributes.ToSlice() {
			parts = append(parts, strings.TrimPrefix(string(a.Key), "quorate.")+"="+a.Value.String())
		}
		return strings.Join(parts, " ")
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					f.values[key(m.Name, p.Attributes)] = float64(p.Value)
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					f.values[key(m.Name, p.Attributes)] = p.Value
				}
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					f.values[key(m.Name, p.Attributes)] = float64(p.Value)
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					k := key(m.Name, p.Attributes)
					f.values[k] = float64(p.Count)
					for _, e := range p.Exemplars {
						f.traces[k] = append(f.traces[k], fmt.Sprintf("%x", e.TraceID))
					}
				}
			}
		}
	}
	return f
}

// has waits until all of some figures are there and not zero.
func (m *meter) has(keys ...string) {
	m.t.Helper()
	var f figures
	missing := func() []string {
		f = m.collect()
		return slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return f.values[k] > 0 })
	}
	defer func() {
		if m.t.Failed() {
			m.t.Logf("no %q among %q", missing(), slices.Sorted(maps.Keys(f.values)))
		}
	}()
	waitFor(m.t, "figures of what was done", func() bool { return len(missing()) == 0 })
}

// measuredBy gives each node of a cluster that is started a meter. One that is started again gets another.
func measuredBy(c *cluster) map[raft.NodeID]*meter {
	meters := map[raft.NodeID]*meter{}
	tune := c.tune
	c.tune = func(cfg *node.Config) {
		if tune != nil {
			tune(cfg)
		}
		m := &meter{t: c.t, reader: sdkmetric.NewManualReader()}
		meters[cfg.ID], cfg.Telemetry = m, m.telemetry()
	}
	return meters
}

func TestTimeInEachChannelIsMeasured(t *testing.T) {
	c := newStoringCluster(t, "n1", "n2", "n3")
	meters := measuredBy(c)
	c.start(c.members...)
	c.fill(nil, 100)
	leader := c.leader()
	if _, err := leader.Purge(within(t, 20*time.Second), 1); err != nil { // through the control channel
		t.Fatal(err)
	}
	for _, channel := range []string{"api", "control", "progress", "snapshot", "durable", "target", "replies"} {
		meters[leader.Config().ID].has("quorate.queue.duration channel=" + channel)
	}
	meters[c.notLeading(leader)].has("quorate.queue.duration channel=rpc", "quorate.queue.duration channel=durable")
	waitFor(t, "votes", func() bool { // of whoever stood first
		for _, m := range meters {
			if m.collect().values["quorate.queue.duration channel=answers"] > 0 {
				return true
			}
		}
		return false
	})
}

func TestExemplarsNameTheTraceOfAProposal(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	meters := measuredBy(c)
	c.start(c.members...)
	leader := c.leader()
	ctx, span := sdktrace.NewTracerProvider().Tracer("test").Start(within(t, 20*time.Second), "caller")
	defer span.End()
	for range 3 {
		if _, err := leader.Propose(within(t, 20*time.Second), []byte("not sampled")); err != nil {
			t.Fatal(err)
		}
		if _, err := leader.Propose(ctx, []byte("sampled")); err != nil {
			t.Fatal(err)
		}
	}
	id := span.SpanContext().TraceID().String()
	var follower raft.NodeID
	for _, follower = range c.members {
		if follower != leader.Config().ID {
			break
		}
	}
	for key, m := range map[string]*meter{
		"quorate.propose.duration kind=propose outcome=applied":   meters[leader.Config().ID],
		"quorate.queue.duration channel=api":                      meters[leader.Config().ID],
		"quorate.append.duration":                                 meters[leader.Config().ID],
		"quorate.apply.duration":                                  meters[leader.Config().ID],
		"quorate.replication.duration target=" + string(follower): meters[leader.Config().ID],
		"quorate.queue.duration channel=rpc":                      meters[follower],
	} {
		var traces []string
		waitFor(t, "an exemplar of "+key, func() bool { // a follower may be behind
			traces = m.collect().traces[key]
			return len(traces) > 0
		})
		if i := slices.IndexFunc(traces, func(trace string) bool { return trace != id }); i >= 0 {
			t.Errorf("an exemplar of %s names the trace %s, want %s", key, traces[i], id)
		}
	}
}

// A node that starts again has voted for itself before: that election was counted then.
func TestAnElectionBeforeTheStartIsNotCountedAgain(t *testing.T) {
	c := newCluster(t, "n1")
	meters := measuredBy(c)
	for term := 1; term <= 2; term++ {
		c.start("n1")
		c.leader()
		if values := meters["n1"].collect().values; values["quorate.elections"] != 1 || values["quorate.term"] != float64(term) {
			t.Errorf("%v elections since the start, in term %v, want 1 and %d", values["quorate.elections"], values["quorate.term"], term)
		}
		c.stop("n1")
	}
}

// A proposal that a follower hands on is the follower's, also if it is sampled; its time in the leader's channel is the leader's.
func TestAProposalThatIsHandedOnCountsOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	meters := measuredBy(c)
	c.start(c.members...)
	leader := c.leader()
	follower := c.notLeading(leader)
	if _, err := c.nodes[follower].Wait(within(t, 20*time.Second), func(s node.Status) bool { return s.Leader == leader.Config().ID }); err != nil {
		t.Fatal(err)
	}
	ctx, span := sdktrace.NewTracerProvider().Tracer("test").Start(within(t, 20*time.Second), "caller")
	defer span.End()
	for _, ctx := range []context.Context{ctx, trace.ContextWithSpanContext(ctx, trace.SpanContext{})} {
		if _, err := c.nodes[follower].Propose(ctx, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	const proposals = "quorate.proposals kind=propose outcome=applied"
	if got := meters[follower].collect().values[proposals]; got != 2 {
		t.Errorf("the follower counts %v proposals of its users, want 2", got)
	}
	got := meters[leader.Config().ID].collect().values
	if got[proposals] != 0 || got["quorate.queue.duration channel=api"] < 2 {
		t.Errorf("the leader counts %v proposals of its own users, and %v times in the channel", got[proposals], got["quorate.queue.duration channel=api"])
	}
}

func TestDisksAndSnapshotsAreMeasured(t *testing.T) {
	t.Parallel()
	c := newStoringCluster(t, "n1", "n2", "n3")
	meters := measuredBy(c)
	c.start(c.members...)
	leader := c.leader()
	late := c.notLeading(leader)
	c.stop(late)
	c.fill(nil, 200)
	c.purged(leader.Config().ID, 100)
	meters[leader.Config().ID].has("quorate.fsync.duration", "quorate.pebble.wal.written store=log", "quorate.pebble.memtable.size store=log",
		"quorate.snapshots action=build outcome=done", "quorate.snapshot.moved action=read", "quorate.snapshot.moved action=store",
		"quorate.snapshot.size", "quorate.snapshot.build.last.duration", "quorate.snapshot.build.last.rate")
	c.start(late)
	meters[late].has("quorate.snapshots action=install outcome=done", "quorate.snapshot.moved action=fetch", "quorate.snapshot.install.last.duration", "quorate.snapshot.install.last.rate")
	// A node that has stopped, and closed its store, tells nothing, and says so without harm.
	c.stop(late)
	if values := meters[late].collect().values; values["quorate.pebble.wal.written store=log"] > 0 || values["quorate.term"] > 0 {
		t.Errorf("a node that has stopped tells %v", values)
	}
}

// TestInFlightIsWhatATargetHasNotAnswered cuts one of three off: what is sent to it stays unanswered until time is out.
func TestInFlightIsWhatATargetHasNotAnswered(t *testing.T) {
	t.Parallel()
	network, quiet := memnet.New(1), slog.New(slog.DiscardHandler)
	members := []raft.NodeID{"n1", "n2", "n3"}
	c := &cluster{t: t, members: members, nodes: map[raft.NodeID]*node.Node{}}
	meters := map[raft.NodeID]*meter{}
	for _, id := range members {
		log, err := pebblelog.OpenLog("log", pebblelog.Options{FS: vfs.NewMem(), Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		meters[id] = &meter{t: t, reader: sdkmetric.NewManualReader()}
		n, err := node.Start(t.Context(), node.Config{
			Cluster: "test", ID: id, Members: members, Log: log, Logger: quiet, Telemetry: meters[id].telemetry(),
			ElectionTimeout: 2 * time.Second, // a message is given up after twice that
			Transport: func(self raft.Peer, boot uint64) (transport.Transport, error) {
				return network.Join(self, boot, quiet), nil
			},
		}, &journal{})
		if err != nil {
			t.Fatal(err)
		}
		c.nodes[id] = n
		t.Cleanup(func() { _ = n.Close(context.Background()) })
	}
	leader := c.leader()
	self, target := leader.Config().ID, c.notLeading(leader)
	messages, size := "quorate.replication.in.flight target="+string(target), "quorate.replication.in.flight.size target="+string(target)
	c.propose("x")
	waitFor(t, "everything to be answered", func() bool {
		values := meters[self].collect().values
		n, ok := values[messages]
		return ok && n == 0 && values[size] == 0
	})
	network.Cut(self, target)
	for range 2 {
		if _, err := leader.Propose(within(t, 20*time.Second), bytes.Repeat([]byte("x"), 1000)); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "messages in flight", func() bool {
		values := meters[self].collect().values
		return values[messages] >= 1 && values[size] >= 1000
	})
	waitFor(t, "the messages to be given up", func() bool { return meters[self].collect().values[messages] == 0 })
	// A target that is removed is not told of any more.
	if _, err := leader.ChangeMembership(within(t, 20*time.Second), node.MembershipChange{Voters: slices.DeleteFunc(slices.Clone(members), func(id raft.NodeID) bool { return id == target })}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the target to be forgotten", func() bool {
		_, there := meters[self].collect().values[messages]
		return !there
	})
}
