package telemetry

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// Recorder makes spans and gives them to processors when they have ended. It does for a Telemetry what a tracer of the OpenTelemetry SDK does, at
// a fraction of the price: Telemetry has decided what is sampled, and knows the parent and the times, so that nothing is looked up in a context,
// asked of a sampler or copied. RaftCore makes most of the spans, and whoever waits for RaftCore waits for these too.
//
// Processors are told of the end of a span only. A Recorder is safe from several goroutines.
type Recorder struct {
	resource   *resource.Resource
	limits     sdktrace.SpanLimits
	processors []sdktrace.SpanProcessor
}

// NewRecorder returns a Recorder whose spans are of a resource, and keep to the limits of the OTEL_* variables, as those of the SDK do.
func NewRecorder(of *resource.Resource, processors ...sdktrace.SpanProcessor) *Recorder {
	return &Recorder{resource: of, limits: sdktrace.NewSpanLimits(), processors: slices.Clone(processors)}
}

// Shutdown shuts the processors down, all at the same time, and blocks until that is done or the context ends.
func (r *Recorder) Shutdown(ctx context.Context) error {
	var calls []func(context.Context) error
	for _, p := range r.processors {
		calls = append(calls, p.Shutdown)
	}
	return together(ctx, calls...)
}

// begin begins a span below a parent, or the root of a trace if that is not valid.
func (r *Recorder) begin(parent trace.SpanContext, name, goroutine string, at time.Time, options []trace.SpanStartOption) *recorded {
	if at.IsZero() {
		at = time.Now()
	}
	s := &recorded{recorder: r, name: name, parent: parent, start: at, kind: trace.SpanKindInternal}
	id := trace.SpanContextConfig{TraceID: parent.TraceID(), TraceFlags: parent.TraceFlags() | trace.FlagsSampled, TraceState: parent.TraceState()}
	if !parent.IsValid() {
		s.parent = trace.SpanContext{}
		binary.BigEndian.PutUint64(id.TraceID[:8], rand.Uint64())
		binary.BigEndian.PutUint64(id.TraceID[8:], 1+rand.Uint64N(1<<64-1)) // zero is no id
	}
	binary.BigEndian.PutUint64(id.SpanID[:], 1+rand.Uint64N(1<<64-1))
	s.context = trace.NewSpanContext(id)
	if len(options) > 0 {
		o := trace.NewSpanStartConfig(options...)
		s.kind = trace.ValidateSpanKind(o.SpanKind())
		s.attributes = make([]attribute.KeyValue, 0, len(o.Attributes())+2)
		s.set(o.Attributes()...)
		for _, link := range o.Links() {
			s.AddLink(link)
		}
	}
	s.set(GoroutineKey.String(goroutine))
	return s
}

// recorded is a span of a Recorder: for who makes it, and for the processors, once it has ended.
type recorded struct {
	tracenoop.Span        // what is not needed of a span
	sdktrace.ReadOnlySpan // nil, for the method that keeps others from being one: all others are here

	recorder        *Recorder
	name            string
	context, parent trace.SpanContext
	kind            trace.SpanKind
	start           time.Time

	mu         sync.Mutex // guards all below, which do not change any more once the span has ended
	end        time.Time
	attributes []attribute.KeyValue
	links      []sdktrace.Link
	events     []sdktrace.Event
	status     sdktrace.Status
	dropped    struct{ attributes, links, events int }
}

// finish ends the span at a time, unless it has ended.
func (s *recorded) finish(at time.Time) {
	s.mu.Lock()
	if !s.end.IsZero() {
		s.mu.Unlock()
		return
	}
	s.end = at
	s.mu.Unlock()
	for _, p := range s.recorder.processors {
		p.OnEnd(s)
	}
}

// change changes the span, unless it has ended.
func (s *recorded) change(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end.IsZero() {
		change()
	}
}

// The span as who makes it sees it.

func (s *recorded) SpanContext() trace.SpanContext { return s.context }

func (s *recorded) IsRecording() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end.IsZero()
}

func (s *recorded) End(options ...trace.SpanEndOption) {
	at := time.Now()
	if o := trace.NewSpanEndConfig(options...); !o.Timestamp().IsZero() {
		at = o.Timestamp()
	}
	s.finish(at)
}

func (s *recorded) SetAttributes(attributes ...attribute.KeyValue) {
	s.change(func() { s.set(attributes...) })
}

// set sets attributes, of which the first ones are kept.
func (s *recorded) set(attributes ...attribute.KeyValue) {
	limits := &s.recorder.limits
	for _, a := range attributes {
		if limits.AttributeValueLengthLimit >= 0 {
			a.Value = shortened(a.Value, limits.AttributeValueLengthLimit)
		}
		at := slices.IndexFunc(s.attributes, func(b attribute.KeyValue) bool { return b.Key == a.Key })
		switch {
		case at >= 0:
			s.attributes[at] = a
		case limits.AttributeCountLimit >= 0 && len(s.attributes) >= limits.AttributeCountLimit:
			s.dropped.attributes++
		default:
			s.attributes = append(s.attributes, a)
		}
	}
}

func (s *recorded) AddLink(link trace.Link) {
	limits := &s.recorder.limits
	attributes, dropped := first(link.Attributes, limits.AttributePerLinkCountLimit)
	s.change(func() {
		s.links = keep(s.links, sdktrace.Link{SpanContext: link.SpanContext, Attributes: attributes, DroppedAttributeCount: dropped}, limits.LinkCountLimit, &s.dropped.links)
	})
}

func (s *recorded) AddEvent(name string, options ...trace.EventOption) {
	o, limits := trace.NewEventConfig(options...), &s.recorder.limits
	attributes, dropped := first(o.Attributes(), limits.AttributePerEventCountLimit)
	s.change(func() {
		s.events = keep(s.events, sdktrace.Event{Name: name, Attributes: attributes, DroppedAttributeCount: dropped, Time: o.Timestamp()}, limits.EventCountLimit, &s.dropped.events)
	})
}

// keep adds one of what a span keeps, of which the newest stay, and counts what is dropped for it. A limit below zero is none.
func keep[T any](kept []T, one T, limit int, dropped *int) []T {
	if limit < 0 || len(kept) < limit {
		return append(kept, one)
	}
	*dropped++
	if limit == 0 {
		return nil
	}
	return append(kept[1:], one)
}

// first are the first attributes of a link or an event, and how many are dropped. A limit below zero is none.
func first(attributes []attribute.KeyValue, limit int) (kept []attribute.KeyValue, dropped int) {
	if limit < 0 || len(attributes) <= limit {
		return attributes, 0
	}
	return attributes[:limit], len(attributes) - limit
}

// shortened is a value whose texts have so many characters at most.
func shortened(v attribute.Value, limit int) attribute.Value {
	switch v.Type() {
	case attribute.STRING:
		return attribute.StringValue(cut(v.AsString(), limit))
	case attribute.BYTESLICE:
		bytes := v.AsByteSlice()
		return attribute.ByteSliceValue(bytes[:min(len(bytes), limit)])
	case attribute.STRINGSLICE:
		texts := v.AsStringSlice() // a copy, as those below
		for i := range texts {
			texts[i] = cut(texts[i], limit)
		}
		return attribute.StringSliceValue(texts)
	case attribute.SLICE:
		values := v.AsSlice()
		for i := range values {
			values[i] = shortened(values[i], limit)
		}
		return attribute.SliceValue(values...)
	case attribute.MAP:
		values := v.AsMap()
		for i := range values {
			values[i].Value = shortened(values[i].Value, limit)
		}
		return attribute.MapValue(values...)
	}
	return v
}

// cut cuts a text that is too long after so many characters; what is none does not count, and goes.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	text = strings.ToValidUTF8(text, "")
	for at := range text {
		if limit == 0 {
			return text[:at]
		}
		limit--
	}
	return text
}

// RecordError adds the event that the conventions have for errors.
func (s *recorded) RecordError(err error, options ...trace.EventOption) {
	if err == nil {
		return
	}
	s.AddEvent("exception", append(options, trace.WithAttributes(
		attribute.String("exception.type", fmt.Sprintf("%T", err)), attribute.String("exception.message", err.Error())))...)
}

// SetStatus sets the status, unless it has one that counts more: Ok is final. Only an error has a description.
func (s *recorded) SetStatus(code codes.Code, description string) {
	if code != codes.Error {
		description = ""
	}
	s.change(func() {
		if code >= s.status.Code {
			s.status = sdktrace.Status{Code: code, Description: description}
		}
	})
}

// The span as processors see it, who get it when it does not change any more.

func (s *recorded) Name() string                     { return s.name }
func (s *recorded) Parent() trace.SpanContext        { return s.parent }
func (s *recorded) SpanKind() trace.SpanKind         { return s.kind }
func (s *recorded) StartTime() time.Time             { return s.start }
func (s *recorded) EndTime() time.Time               { return s.end }
func (s *recorded) Attributes() []attribute.KeyValue { return s.attributes }
func (s *recorded) Links() []sdktrace.Link           { return s.links }
func (s *recorded) Events() []sdktrace.Event         { return s.events }
func (s *recorded) Status() sdktrace.Status          { return s.status }
func (s *recorded) Resource() *resource.Resource     { return s.recorder.resource }
func (s *recorded) DroppedAttributes() int           { return s.dropped.attributes }
func (s *recorded) DroppedLinks() int                { return s.dropped.links }
func (s *recorded) DroppedEvents() int               { return s.dropped.events }
func (s *recorded) ChildSpanCount() int              { return 0 }

func (s *recorded) InstrumentationScope() instrumentation.Scope {
	return instrumentation.Scope{Name: Scope}
}

//lint:ignore SA1019 the interface has it
func (s *recorded) InstrumentationLibrary() instrumentation.Library {
	return s.InstrumentationScope()
}
