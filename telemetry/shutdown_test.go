package telemetry_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"quorate/telemetry"
)

// hung is a processor whose exporter gets no answer.
type hung struct{ discard }

func (hung) Shutdown(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// metricTaker is an exporter that needs the time that it is promised.
type metricTaker struct {
	sdkmetric.Exporter // nil: nothing but what is below is asked
	taken              bool
}

func (*metricTaker) Temporality(sdkmetric.InstrumentKind) metricdata.Temporality {
	return metricdata.CumulativeTemporality
}
func (*metricTaker) Aggregation(kind sdkmetric.InstrumentKind) sdkmetric.Aggregation {
	return sdkmetric.DefaultAggregationSelector(kind)
}
func (k *metricTaker) Export(ctx context.Context, _ *metricdata.ResourceMetrics) error {
	k.taken = ctx.Err() == nil
	return ctx.Err()
}
func (*metricTaker) Shutdown(context.Context) error { return nil }

func TestAnExporterThatHangsTakesNoTimeFromTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics, spans := &metricTaker{}, &taker{}
		p := &telemetry.Providers{
			Recorder: telemetry.NewRecorder(resource.Empty(), hung{}, telemetry.NewBatcher(spans, telemetry.BatchOptions{})),
			Meter:    sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewPeriodicReader(metrics))),
		}
		telemetry.New(telemetry.Options{Recorder: p.Recorder}).Record(trace.SpanContext{}, "the last one", "test", time.Now(), time.Now())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // of the bubble's clock
		defer cancel()
		if err := p.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("shutdown says %v, want that one had no time", err)
		}
		if got := spans.taken(); got != "[[the last one]]" {
			t.Errorf("exported the spans %s", got)
		}
		if !metrics.taken {
			t.Error("the last metrics were not exported")
		}
	})
}

// refusing takes no metrics.
type refusing struct{ prometheus.Registerer }

func (refusing) Register(prometheus.Collector) error { return errors.New("no room for them") }

func TestASetupThatFailsLeavesNothingBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Setenv("OTEL_TRACES_EXPORTER", "console")
	t.Setenv("OTEL_METRICS_EXPORTER", "console")
	if _, err := telemetry.Setup(t.Context(), telemetry.SetupOptions{Registerer: refusing{}}); err == nil || !strings.Contains(err.Error(), "no room for them") {
		t.Errorf("setup says %v, want why Prometheus does not take the metrics", err)
	}
	goleak.VerifyNone(t, before)
}
