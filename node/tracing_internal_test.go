package node

import (
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"quorate/node/raft"
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
	off := newTracing(nil, "n1")
	append = &raft.AppendRequest{Entries: []raft.Entry{{ID: raft.LogID{Term: 1, Index: 1}}}}
	return &Node{}, &off, &worker{sampled: off.entries}, []request{{pending: newPending(raft.Entry{})}}, &transport.Incoming{Request: append}, append
}

func TestTelemetryThatIsOffAllocatesNothing(t *testing.T) {
	n, tr, w, requests, in, req := offTelemetry()
	now := time.Now()
	if got := testing.AllocsPerRun(100, func() { untraced(n, tr, w, requests, in, req, now) }); got != 0 {
		t.Errorf("%v allocations for a proposal and a request that nobody traces", got)
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
