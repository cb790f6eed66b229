package natsrpc

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// traceHeaders carry a W3C trace context in the headers of a NATS message, whose names are case-sensitive: they stay in lower case, as the
// recommendation writes them.
type traceHeaders map[string][]string

func (h traceHeaders) Get(key string) string {
	if values := h[key]; len(values) > 0 {
		return values[0]
	}
	return ""
}

func (h traceHeaders) Set(key, value string) { h[key] = []string{value} }

func (h traceHeaders) Keys() []string {
	keys := make([]string, 0, len(h))
	for key := range h {
		keys = append(keys, key)
	}
	return keys
}

// InjectTrace puts a span context into the headers of a message, which must not be nil.
func InjectTrace(header nats.Header, sc trace.SpanContext) {
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), sc), traceHeaders(header))
}

// ExtractTrace reads the span context of a message's sender; the zero one if there is none, or if it is malformed.
func ExtractTrace(header map[string][]string) trace.SpanContext {
	if len(header) == 0 || len(header["traceparent"]) == 0 {
		return trace.SpanContext{}
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), traceHeaders(header))
	return trace.SpanContextFromContext(ctx)
}
