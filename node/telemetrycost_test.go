package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"quorate/node/raft"
	"quorate/telemetry"
	"quorate/transport/embednats"
)

// BenchmarkTelemetryCost measures what tracing costs of a proposal's CPU, on three nodes of one process over a real NATS server: that of the whole
// process, so that followers and exporters count. Rounds in which the callers sample one proposal in a hundred take turns with rounds in which they
// sample none, on the same nodes, and the median of the ratios of neighbouring rounds is reported.
//
//	go test ./node -run '^$' -bench TelemetryCost -benchtime 1x
//
// Targets: off/% below 1 (what is called although it is off), sampled/% below 3; root/% is what it costs besides where the nodes themselves decide
// what is sampled, by a ratio, because their callers do not say.
func BenchmarkTelemetryCost(b *testing.B) {
	const rounds, perRound, callers, oneIn = 300, 1280, 32, 100
	server, err := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: -1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = server.Close() })
	provider := func() *sdktrace.TracerProvider {
		p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(nowhere{}))
		b.Cleanup(func() { _ = p.Shutdown(context.Background()) })
		return p
	}
	caller := provider().Tracer("caller")
	leader := costCluster(b, server.ClientURL(), func() *telemetry.Telemetry {
		return telemetry.New(telemetry.Options{TracerProvider: provider(), NoRoots: true})
	})
	round := func(samples bool) float64 { // microseconds of CPU a proposal
		before := cpuTime(b)
		var group sync.WaitGroup
		for range callers {
			group.Go(func() {
				for range perRound / callers {
					ctx := context.Background()
					var span trace.Span
					if samples && rand.IntN(oneIn) == 0 {
						ctx, span = caller.Start(ctx, "call")
					}
					if _, err := leader.Propose(ctx, make([]byte, 256)); err != nil {
						b.Error(err)
						return
					}
					if span != nil {
						span.End()
					}
				}
			})
		}
		group.Wait()
		return float64((cpuTime(b) - before).Nanoseconds()) / 1e3 / perRound
	}
	for range 25 { // until files and connections are warm
		round(true)
	}
	last := round(false)
	var off, more []float64
	for range b.N * rounds {
		sampled, next := round(true), round(false)
		both := (last + next) / 2 // before and after, so that a drift of the machine is no cost
		off, more, last = append(off, both), append(more, 100*(sampled/both-1)), next
	}
	slices.Sort(off)
	slices.Sort(more)
	proposal := off[len(off)/2]
	n, tr, w, requests, in, req := offTelemetry()
	called := timeOf(func() { untraced(n, tr, w, requests, in, req, time.Time{}) })
	rooted, _, _, asked, _, _ := withTelemetry(unsampledTelemetry())
	root := timeOf(func() { asked[0].trace(rooted, trace.SpanContext{}) })
	b.ReportMetric(proposal, "µs-cpu/proposal")
	b.ReportMetric(100*called/proposal, "off/%")
	b.ReportMetric(more[len(more)/2], "sampled/%")
	b.ReportMetric(100*root/proposal, "root/%")
	b.Logf("a proposal costs %.1f µs of CPU, 1 %% sampling %.1f %% more (quartiles %.1f and %.1f), what is called while it is off %.3f µs, a root that is not sampled %.2f µs",
		proposal, more[len(more)/2], more[len(more)/4], more[3*len(more)/4], called, root)
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
