package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	client "github.com/prometheus/client_golang/prometheus"
)

// Attributes of the resource: whose spans and metrics they are.
const (
	ClusterKey = attribute.Key("quorate.cluster")
	NodeKey    = attribute.Key("quorate.node")
)

// SetupOptions say who records, and what is wanted beside what the OTEL_* variables ask for.
type SetupOptions struct {
	// Service is the resource's service.name, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES give another. Default: "quorate".
	Service string
	// Version of the service.
	Version string
	// Cluster and Node; Node is empty for a client.
	Cluster, Node string
	// Processors get the spans too, also when no OTEL_* variable asks for an exporter: then of those requests only whose sender is sampled. They
	// get none if OTEL_SDK_DISABLED is true, as nobody does.
	Processors []sdktrace.SpanProcessor
	// Registerer, if not nil, has the metrics collected for Prometheus.
	Registerer client.Registerer
	// Logger gets what goes wrong with the telemetry. Default: slog.Default().
	Logger *slog.Logger
}

// Providers are what Setup made.
type Providers struct {
	Recorder *Recorder
	Meter    *sdkmetric.MeterProvider
	// Telemetry records to them.
	Telemetry *Telemetry
}

// Setup makes providers by the OTEL_* environment variables. Without any, nothing is exported, and only requests whose sender is sampled are
// traced (for the processors of the options). Sampling is based on the parent always; OTEL_TRACES_SAMPLER decides about roots. If
// OTEL_SDK_DISABLED is true, nothing is recorded and measured for anybody, and no other variable is looked at.
// Errors are those of a variable that makes no sense.
func Setup(ctx context.Context, o SetupOptions) (*Providers, error) {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		// The recorder is there to end the processors.
		return &Providers{
			Recorder: NewRecorder(resource.Empty(), o.Processors...), Meter: sdkmetric.NewMeterProvider(), Telemetry: New(Options{Logger: o.Logger}),
		}, nil
	}
	if o.Service == "" {
		o.Service = "quorate"
	}
	batches, err := batchOptions()
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	res, err := o.resource(ctx)
	if err != nil {
		return nil, fmt.Errorf("telemetry: resource: %w", err)
	}
	processors := slices.Clone(o.Processors)
	ratio := 0.0
	if asked("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
		if ratio, err = rootRatio(); err != nil {
			return nil, fmt.Errorf("telemetry: %w", err)
		}
		exporter, err := autoexport.NewSpanExporter(ctx)
		if err != nil {
			return nil, fmt.Errorf("telemetry: exporter of spans (OTEL_TRACES_EXPORTER=%s): %w", os.Getenv("OTEL_TRACES_EXPORTER"), err)
		}
		if autoexport.IsNoneSpanExporter(exporter) {
			ratio = 0
		} else {
			processors = append(processors, NewBatcher(exporter, batches))
		}
	}
	p := &Providers{Recorder: NewRecorder(res, processors...)}
	metrics := []sdkmetric.Option{sdkmetric.WithResource(res)}
	ends := []func(context.Context) error{p.Recorder.Shutdown} // of what a failure leaves behind
	if asked("OTEL_METRICS_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") {
		reader, err := autoexport.NewMetricReader(ctx)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("telemetry: exporter of metrics (OTEL_METRICS_EXPORTER=%s): %w", os.Getenv("OTEL_METRICS_EXPORTER"), err), together(ctx, ends...))
		}
		if !autoexport.IsNoneMetricReader(reader) {
			metrics, ends = append(metrics, sdkmetric.WithReader(reader)), append(ends, reader.Shutdown)
		}
	}
	if o.Registerer != nil {
		reader, err := prometheus.New(prometheus.WithRegisterer(o.Registerer))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("telemetry: metrics for Prometheus: %w", err), together(ctx, ends...))
		}
		metrics = append(metrics, sdkmetric.WithReader(reader))
	}
	p.Meter = sdkmetric.NewMeterProvider(metrics...)
	options := Options{Recorder: p.Recorder, NoRoots: ratio == 0, RootRatio: ratio, Logger: o.Logger}
	if len(metrics) > 1 { // a reader, beside the resource
		options.MeterProvider = p.Meter
	}
	p.Telemetry = New(options)
	return p, nil
}

// Shutdown exports what is left and ends the exporters, all at the same time. It blocks until that is done or the context ends.
func (p *Providers) Shutdown(ctx context.Context) error {
	return together(ctx, p.Recorder.Shutdown, p.Meter.Shutdown)
}

// together calls all at the same time, so that one which hangs leaves the others the time that the context has. It returns when all have.
func together(ctx context.Context, calls ...func(context.Context) error) error {
	errs := make([]error, len(calls))
	var group sync.WaitGroup
	for i, call := range calls {
		group.Go(func() { errs[i] = call(ctx) })
	}
	group.Wait()
	return errors.Join(errs...)
}

func (o *SetupOptions) resource(ctx context.Context) (*resource.Resource, error) {
	attributes := []attribute.KeyValue{attribute.String("service.name", o.Service)}
	if o.Version != "" {
		attributes = append(attributes, attribute.String("service.version", o.Version))
	}
	if o.Cluster != "" {
		attributes = append(attributes, ClusterKey.String(o.Cluster))
	}
	if o.Node != "" {
		attributes = append(attributes, NodeKey.String(o.Node), attribute.String("service.instance.id", o.Cluster+"/"+o.Node))
	}
	// What the variables say comes last, so that it wins.
	return resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(attributes...), resource.WithFromEnv())
}

// rootRatio is the share of the roots that are sampled, by OTEL_TRACES_SAMPLER.
func rootRatio() (float64, error) {
	name, text := os.Getenv("OTEL_TRACES_SAMPLER"), os.Getenv("OTEL_TRACES_SAMPLER_ARG")
	switch strings.TrimPrefix(name, "parentbased_") {
	case "", "always_on":
		return 1, nil
	case "always_off":
		return 0, nil
	case "traceidratio":
		if text == "" {
			return 1, nil
		}
		ratio, err := strconv.ParseFloat(text, 64)
		if err != nil || !(ratio >= 0 && ratio <= 1) {
			return 0, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG is %q: it must be between 0 and 1", text)
		}
		return ratio, nil
	}
	return 0, fmt.Errorf("OTEL_TRACES_SAMPLER is %q: it must be always_on, always_off or traceidratio, or one of these with parentbased_ before it", name)
}

func asked(variables ...string) bool {
	for _, v := range variables {
		if os.Getenv(v) != "" {
			return true
		}
	}
	return false
}
