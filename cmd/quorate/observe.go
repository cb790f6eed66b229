package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"quorate/node/raft"
	"quorate/telemetry"
)

// exportTimeout is how long a process that ends waits for what it has recorded to be taken.
const exportTimeout = 5 * time.Second

// observation is the telemetry of a process: that of its nodes, each under its own name, and the metrics that it serves.
type observation struct {
	registry *prometheus.Registry // nil if metrics are not served
	logger   *slog.Logger
	server   *metricsServer

	mu        sync.Mutex // guards all below
	providers []*telemetry.Providers
	nodes     []*health
}

// observeFlags say what of a process can be seen from outside.
type observeFlags struct{ metricsListen string }

func (f *observeFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.metricsListen, "metrics-listen", "", "serve /metrics for Prometheus, /healthz and /readyz at this `host:port`; OTEL_* variables send metrics and traces elsewhere")
}

func (f *observeFlags) check() error {
	if f.metricsListen == "" {
		return nil
	}
	_, _, err := splitHostPort("--metrics-listen", f.metricsListen)
	return err
}

func (f *observeFlags) start(logger *slog.Logger) (*observation, error) {
	o := &observation{logger: logger}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { logger.Warn("telemetry failed", "error", err) })) // of this process
	if f.metricsListen == "" {
		return o, nil
	}
	o.registry = prometheus.NewRegistry()
	var err error
	o.server, err = listenMetrics(f.metricsListen, o.registry, o.members, logger)
	return o, err
}

// telemetry sets up that of one node, whose spans go to a publisher too. That is shut down with the process, or when the set-up fails.
func (o *observation) telemetry(ctx context.Context, cluster string, id raft.NodeID, spans *spanPublisher) (*telemetry.Telemetry, error) {
	options := telemetry.SetupOptions{
		Version: readBuildVersion().Version, Cluster: cluster, Node: string(id), Logger: o.logger, Processors: []sdktrace.SpanProcessor{spans},
	}
	if o.registry != nil {
		options.Registerer = prometheus.WrapRegistererWith(prometheus.Labels{"cluster": cluster, "node": string(id)}, o.registry)
	}
	p, err := telemetry.Setup(ctx, options)
	if err != nil {
		return nil, errors.Join(err, spans.Shutdown(ctx))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.providers = append(o.providers, p)
	return p.Telemetry, nil
}

// add has the health of a member served, and measured.
func (o *observation) add(m *member, t *telemetry.Telemetry) error {
	h := newHealth(string(m.id), m.node)
	o.mu.Lock()
	o.nodes = append(o.nodes, h)
	o.mu.Unlock()
	_, err := t.Meter().Int64ObservableGauge("quorate.ready", metric.WithUnit("{node}"), metric.WithDescription("1 if this node is ready, as /readyz tells."),
		metric.WithInt64Callback(func(_ context.Context, to metric.Int64Observer) error {
			var ready int64
			if h.ready() == nil {
				ready = 1
			}
			to.Observe(ready)
			return nil
		}))
	return err
}

func (o *observation) members() []*health {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]*health(nil), o.nodes...)
}

// end exports what is left. It blocks until then, a few seconds at most, also when the context has ended. A backend that is not there is no
// failure of the node's.
func (o *observation) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), exportTimeout)
	defer cancel()
	err := o.server.close(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	errs := make([]error, len(o.providers))
	var group sync.WaitGroup
	for i, p := range o.providers { // at the same time: one that hangs leaves the others theirs
		group.Go(func() { errs[i] = p.Shutdown(ctx) })
	}
	group.Wait()
	if err := errors.Join(err, errors.Join(errs...)); err != nil {
		o.logger.Warn("not all telemetry was exported", "error", err)
	}
}

// clientTelemetry is that of a command which is a client, by the OTEL_* variables: without any there is none. export sends what was recorded, and
// blocks until then, a few seconds at most; a backend that is not there is no failure of the command's.
func clientTelemetry(ctx context.Context, cluster string) (t *telemetry.Telemetry, export func(), err error) {
	p, err := telemetry.Setup(ctx, telemetry.SetupOptions{Service: "quorate-client", Version: readBuildVersion().Version, Cluster: cluster})
	if err != nil {
		return nil, nil, withStatus(statusUsage, err)
	}
	return p.Telemetry, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), exportTimeout)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			slog.Warn("not all telemetry was exported", "error", err)
		}
	}, nil
}
