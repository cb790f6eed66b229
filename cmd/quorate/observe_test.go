package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"quorate/telemetry"
	"quorate/test/otlp"
)

// Nothing but the variables of OpenTelemetry makes a put of the command line one trace, through the client and all nodes, at a real receiver.
func TestVariablesAloneExportACommandAndAllItDoes(t *testing.T) {
	receiver := otlp.Start(t)
	for name, value := range receiver.Environment() {
		t.Setenv(name, value)
	}
	c := startOperated(t)
	c.must("put", "greeting", "hello")
	of := func(s tracetest.SpanStub, key attribute.Key) string {
		v, _ := s.Resource.Set().Value(key)
		return v.AsString()
	}
	eventually(t, "put of the command in one trace over all nodes", func() bool {
		spans := receiver.GetSpans()
		i := slices.IndexFunc(spans, func(s tracetest.SpanStub) bool {
			return s.Name == "kv.put" && of(s, "service.name") == "quorate-client"
		})
		if i < 0 || spans[i].Parent.IsValid() {
			return false
		}
		nodes := map[string]map[string]bool{} // that have a span of that name
		for _, s := range spans {
			if node := of(s, telemetry.NodeKey); node != "" && s.SpanContext.TraceID() == spans[i].SpanContext.TraceID() {
				if nodes[s.Name] == nil {
					nodes[s.Name] = map[string]bool{}
				}
				nodes[s.Name][node] = true
			}
		}
		return len(nodes["kv.put"]) == 1 && len(nodes["raft.append_entries"]) == 2 && len(nodes["raft.apply"]) == 1
	})
}

func TestAVariableThatMakesNoSenseIsAUsageError(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "carrier-pigeon")
	url := startNATS(t)
	wantStatus(t, statusUsage, "carrier-pigeon", "get", "key", "--nats", url)
}

// hanging is a processor that does not end before its context does.
type hanging struct{ sdktrace.SpanProcessor }

func (hanging) Shutdown(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// last notes whether it had time to export what it has.
type last struct {
	sdktrace.SpanProcessor
	exported bool
}

func (l *last) Shutdown(ctx context.Context) error {
	l.exported = ctx.Err() == nil
	return ctx.Err()
}

func TestANodeWhoseExporterHangsTakesNoTimeFromTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := &last{}
		o := &observation{logger: slog.New(slog.DiscardHandler)}
		for _, p := range []sdktrace.SpanProcessor{hanging{}, other} {
			o.providers = append(o.providers, &telemetry.Providers{Recorder: telemetry.NewRecorder(resource.Empty(), p), Meter: sdkmetric.NewMeterProvider()})
		}
		o.end(t.Context()) // by the bubble's clock
		if !other.exported {
			t.Error("the second node had no time to export what it had")
		}
	})
}

func TestABackendThatIsGoneIsSaidInTheLog(t *testing.T) {
	url := startNATS(t)
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:"+closedPort(t))
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "100") // ms
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")            // ms
	p := start(t, "serve", "--cluster", "c", "--id", "n1", "--members", "n1", "--dir", t.TempDir(), "--nats", url, "--log-format", "json")
	p.waitFor("telemetry failed")
	p.stop()
	for line := range strings.Lines(p.stderr()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not a line of the log: %s", line)
		}
	}
}
