package main

import (
	"encoding/json"
	"strings"
	"testing"
)

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
