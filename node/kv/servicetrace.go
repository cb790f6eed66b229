package kv

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/micro"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"quorate/node/kv/kvpb"
	"quorate/telemetry"
	"quorate/transport/natsrpc"
)

// onService is the goroutine of the service in spans.
const onService = "kv service"

// beginSpan begins the span of a client's request, below the client's own; the zero one if it is not sampled.
func (l *server) beginSpan(parent trace.SpanContext, request micro.Request, name string) telemetry.Span {
	t := l.options.Telemetry
	if !t.Records(parent) {
		return telemetry.Span{}
	}
	return t.Begin(parent, name, onService, time.Time{}, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("messaging.system", "nats"), attribute.String("messaging.operation.type", "process"),
		attribute.String("messaging.destination.name", request.Subject()), attribute.Int("messaging.message.body.size", len(request.Data()))))
}

// traced is a request with its span, which the answer ends. Those of the other traces that have a part in it are linked with that: what is done for
// all of them is below it.
type traced struct {
	micro.Request
	span   telemetry.Span
	others []telemetry.Span
}

func (t *traced) end(err error) {
	now := time.Now()
	t.span.End(now, err)
	for _, s := range t.others {
		s.End(now, err)
	}
}

// trace begins the span of a request, and those of others in its batch. Most are not sampled, and stay as they are. unsampled: whoever sent it
// has decided that no trace begins here.
func (l *server) trace(request micro.Request, name string, unsampled bool, others ...*kvpb.TraceContext) micro.Request {
	parent := natsrpc.ExtractTrace(request.Headers())
	if unsampled && !parent.IsValid() {
		parent = telemetry.Unsampled()
	}
	t := traced{Request: request, span: l.beginSpan(parent, request, name)}
	for _, context := range others[:min(len(others), maxBatchOps)] {
		parent := natsrpc.ExtractTrace(map[string][]string{headerTraceParent: {context.Parent}, headerTraceState: {context.State}})
		if !parent.IsSampled() {
			continue
		}
		switch span := l.beginSpan(parent, request, name); {
		case !span.Sampled():
		case !t.span.Sampled():
			t.span = span
		default:
			span.Link(t.span.Context())
			t.others = append(t.others, span)
		}
	}
	if !t.span.Sampled() {
		return request
	}
	return t
}

// spanOf is the span of a request, or the zero one.
func spanOf(request micro.Request) telemetry.Span {
	if t, ok := request.(traced); ok {
		return t.span
	}
	return telemetry.Span{}
}

// inSpan returns a context below a request's span, or one that says that it is not sampled, so that the node does not decide that again.
func (l *server) inSpan(request micro.Request) context.Context {
	if span := spanOf(request); span.Sampled() {
		return span.In(context.Background())
	}
	return l.unsampled
}

// inNone returns a context in which nothing is sampled.
func inNone(ctx context.Context) context.Context {
	return trace.ContextWithSpanContext(ctx, telemetry.Unsampled())
}

// endSpan ends the span of a request with its answer.
func endSpan(request micro.Request, header micro.Headers) {
	t, ok := request.(traced)
	if !ok {
		return
	}
	var err error
	if code := header.Get(micro.ErrorCodeHeader); code != "" {
		err = &RequestError{Code: code, Description: header.Get(micro.ErrorHeader)}
	}
	t.end(err)
}

// giveUp ends the span of a request that is not answered.
func giveUp(request micro.Request, err error) {
	if t, ok := request.(traced); ok {
		t.end(err)
	}
}

// readsBelow returns a context below the first of the reads that is sampled; the others are linked with it, since they share its read index.
func readsBelow(ctx context.Context, reads []reading) context.Context {
	var first trace.SpanContext
	for _, r := range reads {
		span := spanOf(r.request)
		switch {
		case !span.Sampled():
		case !first.IsValid():
			first = span.Context()
			ctx = span.In(ctx)
		default:
			span.Link(first)
		}
	}
	return ctx
}
