package telemetry

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// Scope is the name of the instrumentation scope of all spans and instruments.
const Scope = "quorate"

// GoroutineKey is the attribute that names the goroutine of a span, as the design does.
const GoroutineKey = attribute.Key("quorate.goroutine")

// Options say where spans and metrics go. The zero value is off.
type Options struct {
	// Recorder gets the spans; nil for none.
	Recorder *Recorder
	// TracerProvider makes the spans in place of a Recorder, for a program that has one. That costs more.
	TracerProvider trace.TracerProvider
	// MeterProvider gets the metrics; nil for none.
	MeterProvider metric.MeterProvider
	// NoRoots: only requests whose sender is sampled are traced. Nothing begins a trace here, whatever the provider's sampler would say, so
	// that what is not traced costs nothing at all.
	NoRoots bool
	// RootRatio is the share of the traces that could begin here that do, between 0 and 1; 0 means all. It is decided before the provider is
	// asked, which makes a span, a context and two numbers to find that a request is not sampled; its sampler should take all roots.
	RootRatio float64
	// Logger gets what goes wrong with the telemetry. Default: slog.Default().
	Logger *slog.Logger
}

// Telemetry records what happens. It is safe from several goroutines, and off when it is nil.
type Telemetry struct {
	recorder         *Recorder
	tracer           trace.Tracer // if there is no recorder
	meter            metric.Meter
	traces, measures bool
	roots            bool
	ratio            float64
	logger           *slog.Logger
}

// New returns what records to the providers of the options.
func New(o Options) *Telemetry {
	traces := o.Recorder != nil || o.TracerProvider != nil
	t := &Telemetry{recorder: o.Recorder, traces: traces, measures: o.MeterProvider != nil, roots: traces && !o.NoRoots, ratio: o.RootRatio, logger: o.Logger}
	if o.TracerProvider == nil {
		o.TracerProvider = tracenoop.NewTracerProvider()
	}
	if o.MeterProvider == nil {
		o.MeterProvider = metricnoop.NewMeterProvider()
	}
	if t.logger == nil {
		t.logger = slog.Default()
	}
	t.tracer, t.meter = o.TracerProvider.Tracer(Scope), o.MeterProvider.Meter(Scope)
	return t
}

// Meter makes instruments; those of a Telemetry that is off record nothing.
func (t *Telemetry) Meter() metric.Meter {
	if t == nil {
		return metricnoop.NewMeterProvider().Meter(Scope)
	}
	return t.meter
}

// Measures reports whether there is anybody to measure for.
func (t *Telemetry) Measures() bool { return t != nil && t.measures }

// Logger gets what goes wrong with the telemetry.
func (t *Telemetry) Logger() *slog.Logger {
	if t == nil {
		return slog.Default()
	}
	return t.logger
}

// Records reports whether what is about to be done below a parent is to be recorded: the parent is sampled, or there is none and a trace
// begins here, which is decided anew with each call.
func (t *Telemetry) Records(parent trace.SpanContext) bool {
	if t == nil || !t.traces {
		return false
	}
	if parent.IsValid() {
		return parent.IsSampled()
	}
	return t.roots && (t.ratio == 0 || rand.Float64() < t.ratio)
}

// BeginsTraces reports whether traces may begin here. Then of what has no parent, and is not recorded either, it was decided that it is not
// sampled, and whoever goes on with it is told so.
func (t *Telemetry) BeginsTraces() bool { return t != nil && t.roots }

// Unsampled stands for the parent of what is not sampled, so that no trace begins further on. All such share one.
func Unsampled() trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{15: 1}, SpanID: trace.SpanID{7: 1}})
}

// Begin begins a span in a goroutine, below a parent, or as the root of a trace if the parent is the zero one and Records has said so. A
// zero at means now. The Span is zero if it is not sampled.
func (t *Telemetry) Begin(parent trace.SpanContext, name, goroutine string, at time.Time, options ...trace.SpanStartOption) Span {
	if t == nil || !t.traces || (parent.IsValid() && !parent.IsSampled()) || (!parent.IsValid() && !t.roots) {
		return Span{}
	}
	if t.recorder != nil {
		return Span{span: t.recorder.begin(parent, name, goroutine, at, options)}
	}
	if !at.IsZero() {
		options = append(options, trace.WithTimestamp(at))
	}
	ctx := context.Background()
	if parent.IsValid() || parent.TraceState().Len() > 0 { // a root may carry a trace state too
		ctx = trace.ContextWithSpanContext(ctx, parent)
	}
	_, span := t.tracer.Start(ctx, name, options...)
	if !span.IsRecording() {
		return Span{}
	}
	span.SetAttributes(GoroutineKey.String(goroutine)) // now, since most roots are not sampled
	return Span{span: span}
}

// Record records a span that is over.
func (t *Telemetry) Record(parent trace.SpanContext, name, goroutine string, from, to time.Time, options ...trace.SpanStartOption) {
	t.Begin(parent, name, goroutine, from, options...).End(to, nil)
}
