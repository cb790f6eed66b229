package telemetry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"quorate/telemetry"
)

// A Recorder's spans are what the OpenTelemetry SDK would make of the same.
func TestRecorderRecordsWhatTheSDKDoes(t *testing.T) { compareToSDK(t) }

// So they are within the limits that the variables set.
func TestRecorderKeepsToTheLimitsThatTheSDKDoes(t *testing.T) {
	for name, limits := range map[string]map[string]string{
		"short values":              {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "3"},
		"short values of spans":     {"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "2", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "5"},
		"no values":                 {"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "0"},
		"few attributes":            {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "2"},
		"few attributes everywhere": {"OTEL_ATTRIBUTE_COUNT_LIMIT": "1"},
		"few of all": {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "1", "OTEL_SPAN_EVENT_COUNT_LIMIT": "2", "OTEL_SPAN_LINK_COUNT_LIMIT": "1",
			"OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "1", "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "1"},
		"nothing":                {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "0", "OTEL_SPAN_EVENT_COUNT_LIMIT": "0", "OTEL_SPAN_LINK_COUNT_LIMIT": "0"},
		"empty events and links": {"OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "0", "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "0"},
		"no limits": {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "-1", "OTEL_SPAN_EVENT_COUNT_LIMIT": "-1", "OTEL_SPAN_LINK_COUNT_LIMIT": "-1",
			"OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "-1", "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "-1", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "-1"},
	} {
		t.Run(name, func(t *testing.T) {
			for variable, value := range limits {
				t.Setenv(variable, value)
			}
			compareToSDK(t)
		})
	}
}

func compareToSDK(t *testing.T) {
	t.Helper()
	var none trace.TraceState
	state, err := none.Insert("key", "value")
	if err != nil {
		t.Fatal(err)
	}
	sampled := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, TraceState: state})
	remote := sampled.WithRemote(true)
	other := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{3}, SpanID: trace.SpanID{4}})
	at := time.Unix(1_800_000_000, 12345)
	later := at.Add(time.Millisecond)
	two := []attribute.KeyValue{attribute.String("first", "a long value"), attribute.String("second", "another")}
	attributes := trace.WithAttributes(attribute.String("a", "b"), attribute.Int("n", 1))
	for name, record := range map[string]func(*telemetry.Telemetry){
		"over": func(r *telemetry.Telemetry) { r.Record(sampled, "part", "RaftCore", at, later) },
		"below a remote span, of a kind, with attributes, links and a result": func(r *telemetry.Telemetry) {
			s := r.Begin(remote, "call", "worker", at, attributes, trace.WithSpanKind(trace.SpanKindClient), trace.WithLinks(trace.Link{SpanContext: other}))
			s.Link(sampled)
			s.Link(trace.SpanContext{})
			s.Set(attribute.Int("n", 2), attribute.Bool("yes", true))
			s.End(later, nil)
			s.Set(attribute.Int("n", 3))
			s.Link(sampled)
			s.End(later.Add(1), errors.New("too late"))
		},
		"a failure": func(r *telemetry.Telemetry) {
			r.Begin(sampled, "call", "worker", at).End(later, fmt.Errorf("no answer: %w", context.DeadlineExceeded))
		},
		"a root and its child": func(r *telemetry.Telemetry) {
			root := r.Begin(trace.SpanContext{}, "root", "client", at)
			child := r.Begin(root.Context(), "child", "RaftCore", at)
			child.End(later, nil)
			root.End(later, nil)
		},
		"a root with a trace state": func(r *telemetry.Telemetry) {
			r.Begin(trace.NewSpanContext(trace.SpanContextConfig{TraceState: state}), "root", "client", at).End(later, nil)
		},
		"below what is not sampled": func(r *telemetry.Telemetry) { r.Record(other, "part", "RaftCore", at, later) },
		"through a context": func(r *telemetry.Telemetry) {
			s := r.Begin(sampled, "work", "builder", at)
			ctx := s.In(t.Context())
			r.Begin(trace.SpanContextFromContext(ctx), "part", "builder", at).End(later, nil)
			trace.SpanFromContext(ctx).AddEvent("event", trace.WithTimestamp(at), attributes)
			trace.SpanFromContext(ctx).SetStatus(codes.Ok, "")
			trace.SpanFromContext(ctx).End(trace.WithTimestamp(later))
		},
		"a state machine does as it likes with the span of its context": func(r *telemetry.Telemetry) {
			s := trace.SpanFromContext(r.Begin(sampled, "work", "builder", at).In(t.Context()))
			s.RecordError(nil)
			s.SetStatus(codes.Ok, "no description")
			s.SetStatus(codes.Error, "too late")
			for i := range 200 {
				s.AddEvent("event", trace.WithTimestamp(at))
				s.SetAttributes(attribute.Int(fmt.Sprint("a", i%150), i))
			}
			s.End(trace.WithTimestamp(later))
		},
		"much of everything": func(r *telemetry.Telemetry) {
			s := trace.SpanFromContext(r.Begin(sampled, "work", "builder", at, attributes, attributes, trace.WithLinks(trace.Link{SpanContext: other, Attributes: two})).In(t.Context()))
			for i := range 150 {
				s.AddEvent(fmt.Sprint("event ", i), trace.WithTimestamp(at), trace.WithAttributes(two...))
				s.AddLink(trace.Link{SpanContext: sampled.WithSpanID(trace.SpanID{byte(i + 1)}), Attributes: two})
			}
			s.End(trace.WithTimestamp(later))
		},
		"values of any length": func(r *telemetry.Telemetry) {
			s := r.Begin(sampled, "call", "worker", at, trace.WithAttributes(
				attribute.String("a", "wide: 名前の長いスパン"), attribute.String("b", "not \xff\xfe UTF-8"), attribute.String("c", "\ufffd\ufffd\ufffd\ufffd"), attribute.String("d", ""),
				attribute.StringSlice("e", []string{"a", "long one", ""}), attribute.ByteSlice("f", []byte("bytes")), attribute.Int("g", 123456),
				attribute.Slice("h", attribute.StringValue("nested"), attribute.Int64Value(1)), attribute.Map("i", two[0], attribute.StringSlice("n", []string{"deep", "down"}))))
			s.Set(attribute.String("a", "another one"))
			s.End(later, nil)
		},
		"more links than a span keeps": func(r *telemetry.Telemetry) {
			s := r.Begin(sampled, "call", "worker", at)
			for range 130 {
				s.Link(other)
			}
			s.End(later, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			of := resource.NewSchemaless(telemetry.NodeKey.String("n1"))
			theirs, ours := tracetest.NewInMemoryExporter(), tracetest.NewInMemoryExporter()
			record(telemetry.New(telemetry.Options{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSyncer(theirs), sdktrace.WithResource(of))}))
			record(telemetry.New(telemetry.Options{Recorder: telemetry.NewRecorder(of, sdktrace.NewSimpleSpanProcessor(ours))}))
			got, want := shown(ours.GetSpans()), shown(theirs.GetSpans())
			if !slices.Equal(got, want) {
				t.Errorf("recorded\n%s\nwant what the SDK records:\n%s", got, want)
			}
		})
	}
}

// shown shows all of the spans but the ids that were drawn at random: a span whose parent is among them names it, and whether it is of its trace.
func shown(spans tracetest.SpanStubs) []string {
	var all []string
	for _, s := range spans {
		parent := fmt.Sprint(s.Parent.SpanID())
		for _, p := range spans {
			if p.SpanContext.SpanID() == s.Parent.SpanID() {
				parent = fmt.Sprint(p.Name, p.SpanContext.TraceID() == s.SpanContext.TraceID())
			}
		}
		slices.SortFunc(s.Attributes, func(a, b attribute.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })
		for i := range s.Events {
			if s.EndTime.Sub(s.Events[i].Time).Abs() > time.Hour { // that of an error is when it was recorded
				s.Events[i].Time = time.Time{}
			}
		}
		if len(s.Links) == 0 { // the SDK does not tell what it drops of what it keeps none of
			s.DroppedLinks = 0
		}
		if len(s.Events) == 0 {
			s.DroppedEvents = 0
		}
		all = append(all, fmt.Sprint(s.Name, " of ", s.SpanContext.TraceID().IsValid(), s.SpanContext.SpanID().IsValid(), s.SpanContext.TraceFlags(), s.SpanContext.TraceState(),
			s.SpanContext.IsRemote(), " below ", parent, s.Parent.IsRemote(), s.SpanKind, s.StartTime, s.EndTime, s.Attributes, s.Events, s.Links, s.Status, s.DroppedAttributes > 0, s.DroppedLinks, s.DroppedEvents, s.Resource, s.InstrumentationScope.Name))
	}
	return all
}

func BenchmarkSpan(b *testing.B) {
	sampled := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled})
	run := func(name string, o telemetry.Options) {
		b.Run(name, func(b *testing.B) {
			r := telemetry.New(o)
			now := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				r.Record(sampled, "raft.queue", "RaftCore", now, now)
			}
		})
	}
	run("recorder", telemetry.Options{Recorder: telemetry.NewRecorder(resource.Empty(), discard{})})
	run("sdk", telemetry.Options{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(discard{}))})
}

// discard takes spans for nobody.
type discard struct{}

func (discard) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (discard) OnEnd(sdktrace.ReadOnlySpan)                     {}
func (discard) ForceFlush(context.Context) error                { return nil }
func (discard) Shutdown(context.Context) error                  { return nil }
