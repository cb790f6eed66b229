package node

import (
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"quorate/node/raft"
	"quorate/telemetry"
	"quorate/transport"
)

// untraced is everything that tracing and metrics do for one proposal and one peer's request when they are off.
func untraced(n *Node, t *tracing, w *worker, requests []request, in *transport.Incoming, append *raft.AppendRequest, now time.Time) {
	r := requests[0]
	r.begin(n, trace.SpanContext{})
	t.queued(requests, now)
	n.metrics.took(requests, now)
	t.proposed(r.pending.trace, raft.LogID{Term: 1, Index: 1})
	t.received(in, now)
	n.metrics.waited(channelRPC, now, n.metrics.now())
	w.replicating(append)
	n.metrics.durable(syncItem{began: now, trace: t.wrote(&raft.Write{}, now)})
	n.metrics.applied(t.applied(append.Entries, now), now)
	w.measured.flying(0, 0)
	n.metrics.decide(r.pending, nil)
	r.pending.trace.end(Result{}, nil)
}

func offTelemetry() (n *Node, t *tracing, w *worker, requests []request, in *transport.Incoming, append *raft.AppendRequest) {
	return withTelemetry(nil)
}

// unsampledTelemetry begins so few traces that none begins in a test.
func unsampledTelemetry() *telemetry.Telemetry {
	return telemetry.New(telemetry.Options{TracerProvider: sdktrace.NewTracerProvider(), RootRatio: 1e-12})
}

func withTelemetry(with *telemetry.Telemetry) (n *Node, t *tracing, w *worker, requests []request, in *transport.Incoming, append *raft.AppendRequest) {
	tr := newTracing(with, "n1")
	append = &raft.AppendRequest{Entries: []raft.Entry{{ID: raft.LogID{Term: 1, Index: 1}}}}
	return &Node{cfg: Config{Telemetry: with}}, &tr, &worker{sampled: tr.entries, telemetry: with}, []request{{pending: newPending(raft.Entry{})}}, &transport.Incoming{Request: append}, append
}

func TestTelemetryThatIsOffAllocatesNothing(t *testing.T) {
	n, tr, w, requests, in, req := offTelemetry()
	now := time.Now()
	if got := testing.AllocsPerRun(100, func() { untraced(n, tr, w, requests, in, req, now) }); got != 0 {
		t.Errorf("%v allocations for a proposal and a request that nobody traces", got)
	}
}

func TestWhatIsNotSampledAllocatesNothing(t *testing.T) {
	for name, with := range map[string]*telemetry.Telemetry{
		"no roots": telemetry.New(telemetry.Options{TracerProvider: sdktrace.NewTracerProvider(), NoRoots: true}), "few roots": unsampledTelemetry(),
	} {
		n, tr, w, requests, in, req := withTelemetry(with)
		now := time.Now()
		if got := testing.AllocsPerRun(100, func() { untraced(n, tr, w, requests, in, req, now) }); got != 0 {
			t.Errorf("%s: %v allocations for a proposal and a request that are not sampled", name, got)
		}
	}
}

// Another leader's entry may come in the place of one that was sampled: it is remembered for as long as any other.
func TestAnIndexThatIsWrittenAgainIsRememberedAsTheNewest(t *testing.T) {
	span := func(n byte) trace.SpanContext {
		return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{n}, SpanID: trace.SpanID{n}, TraceFlags: trace.FlagsSampled})
	}
	tr := newTracing(nil, "n1")
	rewritten := raft.LogID{Term: 2, Index: 1}
	tr.entries.add(raft.LogID{Term: 1, Index: 1}, span(1))
	tr.entries.add(rewritten, span(2))
	others := uint64(maxSampledEntries - 1)
	for index := uint64(2); index < 2+others; index++ {
		tr.entries.add(raft.LogID{Term: 2, Index: index}, span(3))
	}
	if first, _ := tr.entries.of([]raft.Entry{{ID: rewritten}}); !first.Equal(span(2)) {
		t.Errorf("of %d newer entries, the one that was written again is forgotten", others)
	}
	tr.entries.add(raft.LogID{Term: 2, Index: 2 + others}, span(3))
	if first, _ := tr.entries.of([]raft.Entry{{ID: rewritten}}); first.IsValid() {
		t.Errorf("an entry is remembered after %d newer ones", others+1)
	}
	if got := len(tr.entries.order); got != maxSampledEntries || len(tr.entries.byIndex) != got {
		t.Errorf("%d indexes stand for %d entries, want %d", got, len(tr.entries.byIndex), maxSampledEntries)
	}
}

// TestRequestsThatNeedNoWriteAreForgotten: a leader that sends again what the node has already may be all that it hears.
func TestRequestsThatNeedNoWriteAreForgotten(t *testing.T) {
	tr := newTracing(telemetry.New(telemetry.Options{TracerProvider: sdktrace.NewTracerProvider()}), "n1")
	from := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled})
	for range 100 {
		in := &transport.Incoming{Request: &raft.AppendRequest{}, Trace: from, Reply: func(transport.Response) {}}
		tr.received(in, time.Now())
		in.Reply(nil)
	}
	if got := len(tr.fresh); got != 1 {
		t.Errorf("%d are remembered, want the last one", got)
	}
}

func BenchmarkTelemetryThatIsOff(b *testing.B) {
	n, tr, w, requests, in, req := offTelemetry()
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		untraced(n, tr, w, requests, in, req, now)
	}
}
