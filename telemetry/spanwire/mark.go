package spanwire

import (
	"context"

	"go.opentelemetry.io/otel/trace"
)

// The mark in the W3C trace state. It comes to every span below, in every process.
const (
	markKey   = "quorate"
	markValue = "wire"
)

// Ask returns a context in which a new trace has its spans published on NATS. Its first span must be sampled by who begins it.
func Ask(ctx context.Context) context.Context {
	var none trace.TraceState
	state, err := none.Insert(markKey, markValue)
	if err != nil {
		panic("spanwire: the mark is no trace state: " + err.Error())
	}
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{TraceState: state}))
}

func asked(sc trace.SpanContext) bool {
	return sc.IsSampled() && sc.TraceState().Get(markKey) == markValue
}
