package spanwire

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"quorate/telemetry"
	"quorate/transport/embednats"
	"quorate/transport/natsrpc"
)

const deadline = 30 * time.Second

func connect(t *testing.T, options embednats.Options) *nats.Conn {
	t.Helper()
	options.Host, options.Port = "127.0.0.1", -1
	server, err := embednats.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect(server.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		_ = server.Close()
	})
	return conn
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// provider is what a node records with: what its parents are sampled.
func provider(t *testing.T, conn *nats.Conn, node string) *sdktrace.TracerProvider {
	t.Helper()
	p, err := NewPublisher(context.Background(), conn, Subject("quorate", "c"))
	if err != nil {
		t.Fatal(err)
	}
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(p), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())),
		sdktrace.WithResource(resource.NewSchemaless(telemetry.NodeKey.String(node))))
	t.Cleanup(func() { _ = tp.Shutdown(context.Background()) })
	return tp
}

// handOn makes a context of another process of one of this process, as the headers of a message do.
func handOn(ctx context.Context) context.Context {
	header := nats.Header{}
	natsrpc.InjectTrace(header, trace.SpanContextFromContext(ctx))
	return trace.ContextWithRemoteSpanContext(context.Background(), natsrpc.ExtractTrace(header))
}

func names(spans []*tracepb.ResourceSpans) map[string]int {
	count := map[string]int{}
	for _, r := range spans {
		for _, scope := range r.ScopeSpans {
			for _, s := range scope.Spans {
				count[s.Name]++
			}
		}
	}
	return count
}

func TestSpansOfAllNodesAreGathered(t *testing.T) {
	conn := connect(t, embednats.Options{})
	collector, err := Collect(within(t, deadline), conn, Subject("quorate", "c"))
	if err != nil {
		t.Fatal(err)
	}
	defer collector.Close()
	var own Own
	exporter, err := own.Exporter(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	asker := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	n1, n2 := provider(t, conn, "n1"), provider(t, conn, "n2")

	ctx, root := asker.Tracer("t").Start(Ask(context.Background()), "asked")
	first, serve := n1.Tracer("t").Start(handOn(ctx), "serve")
	_, follow := n2.Tracer("t").Start(handOn(first), "follow")
	_, other := n1.Tracer("t").Start(context.Background(), "of another trace, sampled but not asked for")
	other.End()
	if err := conn.Publish(Subject("quorate", "c"), []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	follow.End()
	serve.End()
	root.End()

	spans, complete, err := collector.Gather(within(t, deadline), root.SpanContext().TraceID(), own.Spans())
	if err != nil || !complete {
		t.Fatalf("complete: %v, error: %v", complete, err)
	}
	if got := names(spans); len(got) != 3 || got["asked"] != 1 || got["serve"] != 1 || got["follow"] != 1 {
		t.Errorf("want asked, serve and follow once each, got %v", got)
	}
}

func TestOnlyWhatIsAskedForIsPublished(t *testing.T) {
	conn := connect(t, embednats.Options{})
	messages, err := conn.SubscribeSync(Subject("quorate", "c"))
	if err != nil {
		t.Fatal(err)
	}
	tp := provider(t, conn, "n1")
	_, span := tp.Tracer("t").Start(context.Background(), "sampled")
	if !span.SpanContext().IsSampled() {
		t.Fatal("the span is not sampled: the test tests nothing")
	}
	span.End()
	_, span = tp.Tracer("t").Start(Ask(context.Background()), "asked")
	span.End()
	if err := tp.ForceFlush(within(t, deadline)); err != nil {
		t.Fatal(err)
	}
	m, err := messages.NextMsg(deadline)
	if err != nil {
		t.Fatal(err)
	}
	spans, err := Decode(m.Data)
	if err != nil {
		t.Fatal(err)
	}
	if got := names(spans); got["asked"] != 1 || len(got) != 1 {
		t.Errorf("want only what was asked for, got %v", got)
	}
}

func TestGatherEndsWithItsContext(t *testing.T) {
	conn := connect(t, embednats.Options{})
	collector, err := Collect(within(t, deadline), conn, Subject("quorate", "c"))
	if err != nil {
		t.Fatal(err)
	}
	orphan := []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{
		{TraceId: make([]byte, 16), SpanId: []byte("12345678"), ParentSpanId: []byte("87654321")},
	}}}}}
	spans, complete, err := collector.Gather(within(t, 20*time.Millisecond), trace.TraceID{}, orphan)
	if err != nil || complete || len(spans) != 1 {
		t.Errorf("want the span there is, incomplete; got %d, complete: %v, error: %v", len(spans), complete, err)
	}
}

// A trace that is complete is not held up by what others say meanwhile: neither nonsense, nor other traces, nor what came already.
func TestGatherWaitsForNobodyElse(t *testing.T) {
	conn := connect(t, embednats.Options{})
	subject := Subject("quorate", "c")
	collector, err := Collect(within(t, deadline), conn, subject)
	if err != nil {
		t.Fatal(err)
	}
	spansOf := func(id trace.TraceID, span byte) []*tracepb.ResourceSpans {
		return []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{TraceId: id[:], SpanId: []byte{7: span}}}}}}}
	}
	encoded := func(spans []*tracepb.ResourceSpans) []byte {
		raw, err := Encode(spans)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	ours, others := trace.TraceID{1}, trace.TraceID{2}
	own := spansOf(ours, 1)
	messages := [][]byte{[]byte("nonsense"), encoded(own)}
	for span := range byte(200) {
		messages = append(messages, encoded(spansOf(others, span+1)))
	}
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(quiet / 10)
		defer tick.Stop()
		for i := 0; ; i++ {
			_ = conn.Publish(subject, messages[i%len(messages)])
			_ = conn.Publish(subject, messages[i%2])
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	ctx := within(t, deadline)
	spans, complete, err := collector.Gather(ctx, ours, own)
	if err != nil || !complete || len(spans) != 1 {
		t.Errorf("want the span there is, complete; got %d, complete: %v, error: %v", len(spans), complete, err)
	}
	if ctx.Err() != nil {
		t.Error("others' messages held a complete trace up until the context's end")
	}
	close(done)
	group.Wait()
}

// Whoever floods the subject with large spans of a trace, or with small ones of a large resource, does not fill the memory.
func TestWhatIsGatheredIsBounded(t *testing.T) {
	large := []attribute.KeyValue{attribute.String("text", strings.Repeat("x", 1<<20))}
	conn := connect(t, embednats.Options{})
	var own Own
	exporter, err := own.Exporter(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter), sdktrace.WithResource(resource.NewSchemaless(large...)))
	_, root := tp.Tracer("t").Start(context.Background(), "root")
	root.End()
	_, more := tp.Tracer("t").Start(trace.ContextWithSpanContext(context.Background(), root.SpanContext()), "large", trace.WithAttributes(large...))
	more.End()
	var flood []*tracepb.ResourceSpans
	for range 4 * maxBytes >> 20 { // all share the text: the test needs no memory for it
		for _, r := range own.Spans() {
			s := r.ScopeSpans[0].Spans[0]
			flood = append(flood, &tracepb.ResourceSpans{Resource: r.Resource, ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{
				{TraceId: s.TraceId, SpanId: binary.BigEndian.AppendUint64(nil, uint64(len(flood)+1)), ParentSpanId: s.ParentSpanId, Attributes: s.Attributes},
			}}}})
		}
	}
	collector, err := Collect(within(t, deadline), conn, Subject("quorate", "c"))
	if err != nil {
		t.Fatal(err)
	}
	spans, complete, err := collector.Gather(within(t, deadline), root.SpanContext().TraceID(), flood)
	if err != nil || complete {
		t.Errorf("complete: %v, error: %v", complete, err)
	}
	size := proto.Size(&tracepb.TracesData{ResourceSpans: spans})
	if size < maxBytes || size > maxBytes+4<<20 {
		t.Errorf("%d bytes are kept, the bound is %d", size, maxBytes)
	}
}

// Spans that do not fit in one message come in several.
func TestManySpansAreSplit(t *testing.T) {
	conn := connect(t, embednats.Options{MaxPayload: 64 << 10})
	collector, err := Collect(within(t, deadline), conn, Subject("quorate", "c"))
	if err != nil {
		t.Fatal(err)
	}
	tp := provider(t, conn, "n1")
	ctx, root := tp.Tracer("t").Start(Ask(context.Background()), "asked")
	for range 100 {
		_, s := tp.Tracer("t").Start(ctx, "large", trace.WithAttributes(attribute.String("text", strings.Repeat("x", 10<<10))))
		s.End()
	}
	root.End()
	spans, complete, err := collector.Gather(within(t, deadline), root.SpanContext().TraceID(), nil)
	if err != nil || !complete || names(spans)["large"] != 100 {
		t.Errorf("want all 100 spans; got %v, complete: %v, error: %v", names(spans), complete, err)
	}
}

func FuzzDecode(f *testing.F) {
	good, err := Encode([]*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{
		{TraceId: make([]byte, 16), SpanId: make([]byte, 8), Name: "kv.put"},
	}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("nonsense"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		spans, err := Decode(raw)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("want ErrMalformed, got %v", err)
			}
			return
		}
		g := gathering{known: map[string]bool{}, missing: map[string]bool{}}
		g.add(spans)
		if _, err := Encode(g.spans); err != nil {
			t.Errorf("what was decoded cannot be encoded: %v", err)
		}
	})
}
