// Package otlp is a receiver of spans for tests: a real OTLP endpoint over gRPC, on loopback, that keeps what it gets.
package otlp

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Receiver keeps spans. It is safe from several goroutines.
type Receiver struct {
	collector.UnimplementedTraceServiceServer
	// URL is what OTEL_EXPORTER_OTLP_ENDPOINT wants.
	URL string

	mu    sync.Mutex // guards spans
	spans tracetest.SpanStubs
}

// Start starts a receiver, which ends with the test.
func Start(t *testing.T) *Receiver {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Receiver{URL: "http://" + listener.Addr().String()}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, r)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); err != nil {
			t.Errorf("OTLP receiver: %v", err)
		}
	})
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	return r
}

// Environment is what makes a program export its spans here, by the variables of OpenTelemetry alone.
func (r *Receiver) Environment() map[string]string {
	return map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": r.URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_METRICS_EXPORTER": "none", "OTEL_BSP_SCHEDULE_DELAY": "20",
	}
}

// GetSpans returns what has arrived, as the in-memory exporter does.
func (r *Receiver) GetSpans() tracetest.SpanStubs {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(tracetest.SpanStubs(nil), r.spans...)
}

// Export takes spans.
func (r *Receiver) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range request.ResourceSpans {
		res := resource.NewSchemaless(attributes(of.Resource.GetAttributes())...)
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				r.spans = append(r.spans, stub(s, res))
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func stub(s *tracepb.Span, res *resource.Resource) tracetest.SpanStub {
	status := map[tracepb.Status_StatusCode]codes.Code{tracepb.Status_STATUS_CODE_OK: codes.Ok, tracepb.Status_STATUS_CODE_ERROR: codes.Error}
	out := tracetest.SpanStub{
		Name:        s.Name,
		SpanKind:    trace.SpanKind(s.Kind), // of the same numbers
		SpanContext: spanContext(s.TraceId, s.SpanId),
		StartTime:   time.Unix(0, int64(s.StartTimeUnixNano)), EndTime: time.Unix(0, int64(s.EndTimeUnixNano)),
		Attributes: attributes(s.Attributes),
		Resource:   res,
	}
	out.Status.Code, out.Status.Description = status[s.Status.GetCode()], s.Status.GetMessage()
	if len(s.ParentSpanId) > 0 {
		out.Parent = spanContext(s.TraceId, s.ParentSpanId)
	}
	return out
}

func spanContext(id, span []byte) trace.SpanContext {
	config := trace.SpanContextConfig{TraceFlags: trace.FlagsSampled}
	copy(config.TraceID[:], id)
	copy(config.SpanID[:], span)
	return trace.NewSpanContext(config)
}

// attributes are those of strings and numbers; there are no others.
func attributes(all []*commonpb.KeyValue) (out []attribute.KeyValue) {
	for _, kv := range all {
		switch v := kv.Value.GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			out = append(out, attribute.String(kv.Key, v.StringValue))
		case *commonpb.AnyValue_IntValue:
			out = append(out, attribute.Int64(kv.Key, v.IntValue))
		case *commonpb.AnyValue_BoolValue:
			out = append(out, attribute.Bool(kv.Key, v.BoolValue))
		}
	}
	return out
}
