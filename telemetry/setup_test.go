package telemetry_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"quorate/telemetry"
)

func TestTheSamplerDecidesAboutRootsOnly(t *testing.T) {
	sampled := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled})
	const tries = 10_000
	for _, test := range []struct {
		sampler, arg string
		least, most  int // roots among tries
	}{
		{"", "", tries, tries},
		{"always_on", "", tries, tries},
		{"parentbased_always_off", "", 0, 0},
		{"parentbased_traceidratio", "", tries, tries},
		{"parentbased_traceidratio", "0", 0, 0},
		{"parentbased_traceidratio", "0.5", 4000, 6000},
		{"traceidratio", "0.01", 1, 400},
	} {
		t.Run(test.sampler+" "+test.arg, func(t *testing.T) {
			t.Setenv("OTEL_TRACES_EXPORTER", "console")
			t.Setenv("OTEL_METRICS_EXPORTER", "none")
			t.Setenv("OTEL_TRACES_SAMPLER", test.sampler)
			t.Setenv("OTEL_TRACES_SAMPLER_ARG", test.arg)
			p, err := telemetry.Setup(t.Context(), telemetry.SetupOptions{})
			if err != nil {
				t.Fatal(err)
			}
			roots := 0
			for range tries {
				if p.Telemetry.Records(trace.SpanContext{}) {
					roots++
				}
			}
			if roots < test.least || roots > test.most {
				t.Errorf("%d of %d roots are sampled, want %d to %d", roots, tries, test.least, test.most)
			}
			if !p.Telemetry.Records(sampled) {
				t.Error("what is below a sampled span is not recorded")
			}
			if p.Telemetry.Records(telemetry.Unsampled()) || !telemetry.Unsampled().IsValid() {
				t.Error("what is below an unsampled span is recorded")
			}
			if err := p.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnSDKThatIsDisabledRecordsNothing(t *testing.T) {
	sampled := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled})
	for value, off := range map[string]bool{"true": true, "TRUE": true, "false": false, "": false, "1": false} {
		t.Run(value, func(t *testing.T) {
			t.Setenv("OTEL_SDK_DISABLED", value)
			t.Setenv("OTEL_TRACES_EXPORTER", "console")
			t.Setenv("OTEL_METRICS_EXPORTER", "none")
			own, registry := &taker{}, prometheus.NewRegistry()
			p, err := telemetry.Setup(t.Context(), telemetry.SetupOptions{Processors: []sdktrace.SpanProcessor{sdktrace.NewSimpleSpanProcessor(own)}, Registerer: registry})
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Telemetry.Measures(); got == off {
				t.Errorf("it measures: %v", got)
			}
			if got := p.Telemetry.Records(trace.SpanContext{}) || p.Telemetry.Records(sampled); got == off {
				t.Errorf("it records: %v", got)
			}
			p.Telemetry.Record(sampled, "span", "test", time.Now(), time.Now())
			if got := own.taken(); (got == "[]") != off {
				t.Errorf("recorded %s", got)
			}
			if families, err := registry.Gather(); err != nil || (len(families) == 0) != off {
				t.Errorf("%d families of metrics for Prometheus: %v", len(families), err)
			}
			if err := p.Shutdown(t.Context()); err != nil || !own.ended {
				t.Errorf("shutdown: %v; the processor ended: %v", err, own.ended)
			}
		})
	}
}

func TestASamplerThatMakesNoSenseIsAnError(t *testing.T) {
	for _, test := range [][2]string{{"sometimes", ""}, {"traceidratio", "1 %"}, {"parentbased_traceidratio", "2"}, {"traceidratio", "NaN"}} {
		t.Setenv("OTEL_TRACES_EXPORTER", "console")
		t.Setenv("OTEL_TRACES_SAMPLER", test[0])
		t.Setenv("OTEL_TRACES_SAMPLER_ARG", test[1])
		if _, err := telemetry.Setup(t.Context(), telemetry.SetupOptions{}); err == nil {
			t.Errorf("sampler %q with %q is taken", test[0], test[1])
		}
	}
}
