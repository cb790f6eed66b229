package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
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
	var rows []string
	deadline := time.After(20 * time.Second)
	for {
		spans := receiver.GetSpans()
		var root tracetest.SpanStub
		for _, s := range spans {
			if s.Name == "kv.put" && of(s, "service.name") == "quorate-client" {
				root = s
			}
		}
		rows = nil
		for _, s := range spans {
			if s.SpanContext.TraceID() == root.SpanContext.TraceID() {
				rows = append(rows, s.Name+" at "+of(s, telemetry.NodeKey))
			}
		}
		at := func(name string) (n int) {
			for _, id := range []string{"n1", "n2", "n3"} {
				if slices.Contains(rows, name+" at "+id) {
					n++
				}
			}
			return n
		}
		if root.SpanContext.IsValid() && !root.Parent.IsValid() && at("kv.put") == 1 && at("raft.append_entries") == 2 && at("raft.apply") == 1 {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatalf("the command's trace has %s", fmt.Sprint(rows))
		}
	}
}

func TestAVariableThatMakesNoSenseIsAUsageError(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "carrier-pigeon")
	url := startNATS(t)
	wantStatus(t, statusUsage, "carrier-pigeon", "get", "key", "--nats", url)
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
