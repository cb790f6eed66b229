package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Span is a span that may not be there: the zero Span is of something that is not sampled, and does nothing. It is small and travels by value
// with a message through a channel.
type Span struct{ span trace.Span }

// Sampled reports whether anything is recorded.
func (s Span) Sampled() bool { return s.span != nil }

// Context is what a child names as its parent; the zero one if nothing is recorded.
func (s Span) Context() trace.SpanContext {
	if s.span == nil {
		return trace.SpanContext{}
	}
	return s.span.SpanContext()
}

// In returns a context in which the span is the current one.
func (s Span) In(ctx context.Context) context.Context {
	if s.span == nil {
		return ctx
	}
	return trace.ContextWithSpan(ctx, s.span)
}

// Set adds attributes. Callers ask Sampled first, so that what is not sampled does not make them.
func (s Span) Set(attributes ...attribute.KeyValue) {
	if s.span != nil {
		s.span.SetAttributes(attributes...)
	}
}

// Link says that the span has to do with another trace.
func (s Span) Link(to trace.SpanContext) {
	if s.span != nil && to.IsValid() {
		s.span.AddLink(trace.Link{SpanContext: to})
	}
}

// End ends the span, with the error that ended its work if there was one. A zero at means now.
func (s Span) End(at time.Time, err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		s.span.RecordError(err)
		s.span.SetStatus(codes.Error, err.Error())
	}
	if at.IsZero() {
		at = time.Now()
	}
	if own, ok := s.span.(*recorded); ok {
		own.finish(at)
		return
	}
	s.span.End(trace.WithTimestamp(at))
}
