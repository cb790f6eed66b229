package spanwire

import (
	"context"
	"sync"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Own keeps the spans of the process that asks, which need not go over NATS. It is safe from several goroutines.
type Own struct {
	mu    sync.Mutex
	spans []*tracepb.ResourceSpans // guarded by mu
}

// Exporter returns what a tracer provider exports to.
func (o *Own) Exporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	return otlptrace.New(ctx, o)
}

// Spans returns what was exported so far.
func (o *Own) Spans() []*tracepb.ResourceSpans {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.spans[:len(o.spans):len(o.spans)]
}

// Start is of an OTLP client, and does nothing.
func (o *Own) Start(context.Context) error { return nil }

// Stop is of an OTLP client, and does nothing.
func (o *Own) Stop(context.Context) error { return nil }

// UploadTraces keeps the spans.
func (o *Own) UploadTraces(_ context.Context, spans []*tracepb.ResourceSpans) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spans = append(o.spans, spans...)
	return nil
}
