package natsrpc

import (
	"context"
	"slices"

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

const (
	// maxTraceState is how much of a trace state travels on, as the recommendation has it: others may send as much as a whole message.
	maxTraceState = 512
	// maxTraceHeader is the most that InjectTrace adds to a message, with names and ends of lines.
	maxTraceHeader = maxTraceState + 128
)

// InjectTrace puts a span context into the headers of a message, which must not be nil. Of a long trace state only a part goes along.
func InjectTrace(header nats.Header, sc trace.SpanContext) {
	if state := sc.TraceState(); len(state.String()) > maxTraceState {
		sc = sc.WithTraceState(shortened(state))
	}
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), sc), traceHeaders(header))
}

// shortened keeps the newest members of a trace state that go in together. Large ones go first, as the recommendation says.
func shortened(state trace.TraceState) trace.TraceState {
	const large = 128
	left, size := trace.TraceState{}, 0
	var keys []string
	state.Walk(func(key, value string) bool {
		if n := len(key) + len(value) + 2; n <= large && size+n <= maxTraceState {
			keys, size = append(keys, key), size+n
		}
		return true
	})
	for _, key := range slices.Backward(keys) { // each is put before the others
		left, _ = left.Insert(key, state.Get(key)) // valid, as it comes from a trace state
	}
	return left
}

// ExtractTrace reads the span context of a message's sender; the zero one if there is none, or if it is malformed.
func ExtractTrace(header map[string][]string) trace.SpanContext {
	if len(header) == 0 || len(header["traceparent"]) == 0 {
		return trace.SpanContext{}
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), traceHeaders(header))
	return trace.SpanContextFromContext(ctx)
}
