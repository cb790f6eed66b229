package kv

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"quorate/node/kv/kvpb"
	"quorate/telemetry"
	"quorate/transport/natsrpc"
)

// WithTelemetry has a client record spans of what it does, below those of its callers' contexts, and send them with its requests.
func WithTelemetry(t *telemetry.Telemetry) ClientOption {
	return func(o *clientOptions) { o.telemetry = t }
}

// beginSpan begins the span of a call; the zero one if it is not sampled.
func (c *Client) beginSpan(ctx context.Context, name, op string) telemetry.Span {
	parent := trace.SpanContextFromContext(ctx)
	if !c.telemetry.Records(parent) {
		return telemetry.Span{}
	}
	return c.telemetry.Begin(parent, name, "client", time.Time{}, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("messaging.system", "nats"), attribute.String("messaging.operation.type", "send"),
		attribute.String("messaging.destination.name", c.stem+op)))
}

// traceHeader makes the headers of a message with several operations: it has the span of the first that is sampled, and the others
// are linked with that. It returns nil if none is.
func traceHeader(operations []*operation) nats.Header {
	var first trace.SpanContext
	for _, o := range operations {
		switch {
		case !o.span.Sampled():
		case !first.IsValid():
			first = o.span.Context()
		default:
			o.span.Link(first)
		}
	}
	if !first.IsValid() {
		return nil
	}
	header := nats.Header{}
	natsrpc.InjectTrace(header, first)
	return header
}

// traceContexts are those of the other operations, which travel in the message itself.
func traceContexts(operations []*operation) (others []*kvpb.TraceContext) {
	first := true
	for _, o := range operations {
		switch {
		case !o.span.Sampled():
		case first:
			first = false
		default:
			header := nats.Header{}
			natsrpc.InjectTrace(header, o.span.Context())
			others = append(others, &kvpb.TraceContext{Parent: header.Get(headerTraceParent), State: header.Get(headerTraceState)})
		}
	}
	return others
}

// Names of the headers of a W3C trace context.
const (
	headerTraceParent = "traceparent"
	headerTraceState  = "tracestate"
)

// spanOfOp names the span of a write.
func spanOfOp(kind uint32) string {
	if kind == opDelete {
		return "kv.delete"
	}
	return "kv.put"
}

// spanOfOps names the span of a message with writes.
func spanOfOps(ops []*kvpb.Op) string {
	for _, op := range ops[1:] {
		if op.Kind != ops[0].Kind {
			return "kv.batch"
		}
	}
	return spanOfOp(ops[0].Kind)
}
