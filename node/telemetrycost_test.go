package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"quorate/node/raft"
	"quorate/telemetry"
	"quorate/transport/embednats"
)

// BenchmarkTelemetryCost measures what tracing costs of a proposal's CPU, on three nodes of one process over a real NATS server: that of the whole
// process, so that followers and exporters count. Short rounds in which the callers sample one proposal in a hundred are paired with rounds in which
// they sample none, on the same nodes, in either order by turns. The median of the pairs' ratios is reported, since a compaction or another guest of
// the machine makes some of them useless, with the interval that it lies in by 95 %.
//
//	go test ./node -run '^$' -bench TelemetryCost -benchtime 1x
//
// Targets: off/% below 1 (what is called although it is off), sampled/% below 3. root/% is what it costs besides where the nodes themselves decide
// what is sampled, by a ratio, because their callers do not say. With many callers the proposals share writes and messages, and cost less; a trace
// costs as much as ever, and whoever is sampled comes a little later, now and then too late for a write that the others share.
func BenchmarkTelemetryCost(b *testing.B) {
	b.Run("1-caller", func(b *testing.B) { telemetryCost(b, 1, 100, 400) })
	b.Run("32-callers", func(b *testing.B) { telemetryCost(b, 32, 10, 2000) })
}

func telemetryCost(b *testing.B, callers, each, pairs int) {
	const oneIn = 100
	server, err := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: -1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = server.Close() })
	recording := func() *telemetry.Telemetry { // as package telemetry sets it up, but for the backend
		recorder := telemetry.NewRecorder(resource.Empty(), telemetry.NewBatcher(nowhere{}, telemetry.BatchOptions{}))
		b.Cleanup(func() { _ = recorder.Shutdown(context.Background()) })
		return telemetry.New(telemetry.Options{Recorder: recorder, NoRoots: true})
	}
	caller := recording()
	leader := costCluster(b, server.ClientURL(), recording)
	call := func(ctx context.Context) error {
		_, err := leader.Propose(ctx, make([]byte, 256))
		return err
	}
	parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled})
	sampledCall := func(ctx context.Context) error {
		span := caller.Begin(parent, "call", "caller", time.Time{})
		err := call(span.In(ctx))
		span.End(time.Time{}, err)
		return err
	}
	round := func(samples bool) float64 { // microseconds of CPU a proposal
		before := cpuTime(b)
		var group sync.WaitGroup
		for range callers {
			group.Go(func() {
				for range each {
					do := call
					if samples && rand.IntN(oneIn) == 0 {
						do = sampledCall
					}
					if err := do(b.Context()); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		group.Wait()
		return float64((cpuTime(b) - before).Nanoseconds()) / 1e3 / float64(callers*each)
	}
	for range pairs / 20 { // until files and connections are warm
		round(true)
	}
	var off, ratios []float64
	for i := range b.N * pairs {
		var cost [2]float64 // without and with
		first := i % 2
		cost[first] = round(first == 1)
		cost[1-first] = round(first == 0)
		off, ratios = append(off, cost[0]), append(ratios, cost[1]/cost[0])
	}
	slices.Sort(off)
	slices.Sort(ratios)
	more := func(quantile float64) float64 { return 100 * (ratios[int(quantile*float64(len(ratios)-1))] - 1) }
	proposal := off[len(off)/2]
	n, tr, w, requests, in, req := offTelemetry()
	called := timeOf(func() { untraced(n, tr, w, requests, in, req, time.Time{}) })
	rooted, _, _, asked, _, _ := withTelemetry(unsampledTelemetry())
	root := timeOf(func() { asked[0].trace(rooted, trace.SpanContext{}) })
	b.ReportMetric(proposal, "µs-cpu/proposal")
	b.ReportMetric(100*called/proposal, "off/%")
	b.ReportMetric(more(0.5), "sampled/%")
	b.ReportMetric(100*root/proposal, "root/%")
	sure := 0.98 / math.Sqrt(float64(len(ratios))) // of the quantile of a median, by 95 %
	b.Logf("a proposal costs %.1f µs of CPU, 1 %% sampling %.1f %% more (%.1f to %.1f; quartiles of the pairs %.1f and %.1f), what is called while it is off %.3f µs, a root that is not sampled %.2f µs",
		proposal, more(0.5), more(0.5-sure), more(0.5+sure), more(0.25), more(0.75), called, root)
}

// timeOf returns the microseconds that f takes.
func timeOf(f func()) float64 {
	const times = 300_000
	begun := time.Now()
	for range times {
		f()
	}
	return float64(time.Since(begun).Nanoseconds()) / 1e3 / times
}

// costCluster starts three nodes, and returns the leader.
func costCluster(b *testing.B, url string, t func() *telemetry.Telemetry) *Node {
	b.Helper()
	dir := b.TempDir()
	var nodes []*Node
	for _, id := range []raft.NodeID{"n1", "n2", "n3"} {
		n, err := Start(b.Context(), Config{
			Cluster: "cost", ID: id, Members: []raft.NodeID{"n1", "n2", "n3"}, Dir: filepath.Join(dir, string(id)), URL: url,
			Logger: slog.New(slog.DiscardHandler), Telemetry: t(), HeartbeatInterval: 250 * time.Millisecond, ElectionTimeout: 3 * time.Second,
		}, costless{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = n.Close(context.Background()) })
		nodes = append(nodes, n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	status, err := nodes[0].Wait(ctx, func(s Status) bool { return s.Leader != "" })
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range nodes {
		if n.self.ID == status.Leader {
			if _, err := n.Wait(ctx, func(s Status) bool { return s.Serving }); err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatal(fmt.Sprint("no node is ", status.Leader))
	return nil
}

func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// nowhere takes spans for nobody.
type nowhere struct{}

func (nowhere) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (nowhere) Shutdown(context.Context) error                             { return nil }

// costless is a state machine that does nothing.
type costless struct{}

func (costless) Apply(batch Batch) ([][]byte, error) { return make([][]byte, len(batch.Commands)), nil }
func (costless) Snapshot() (Snapshot, error)         { return emptySnapshot{}, nil }
func (costless) Restore(context.Context, SnapshotMeta, io.Reader) error {
	return nil
}
func (costless) Close() error { return nil }

type emptySnapshot struct{}

func (emptySnapshot) WriteTo(context.Context, io.Writer) error { return nil }
func (emptySnapshot) Close() error                             { return nil }
