package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/raft"
	"quorate/telemetry"
)

func TestMetricsPassTheLinterAndNodesAreReady(t *testing.T) {
	logger := slog.New(slog.DiscardHandler)
	observation, err := (&observeFlags{metricsListen: "127.0.0.1:0"}).start(logger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { observation.end(context.WithoutCancel(t.Context())) })
	if status, body := fetch(t, observation, "/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("ready without any node: %d %s", status, body)
	}
	ctx, c := startMeasured(t, observation)
	leader, err := c.waitReady(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.members {
		if _, err := m.node.Wait(ctx, func(s node.Status) bool { return s.Leader == leader && s.AppliedIndex == s.LastIndex }); err != nil {
			t.Fatal(err)
		}
		if m.id == leader {
			if _, err := m.node.ReadIndex(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := m.node.Snapshot(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := fetch(t, observation, path); status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	_, body := fetch(t, observation, "/metrics")
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, want := range []string{
		fmt.Sprintf(`quorate_serving{cluster="test",node="%s"`, leader), `quorate_role{cluster="test",node="n2"`, `quorate_replication_lag{cluster="test",node="`, "quorate_append_duration_seconds_bucket{",
		"quorate_queue_duration_seconds_bucket{", "quorate_replication_duration_seconds_bucket{", "quorate_proposals_total{", "quorate_leader_changes_total{",
		`quorate_ready{cluster="test",node="n3"`, `quorate_fsync_duration_seconds_bucket{cluster="test",node="n1"`,
		`quorate_replication_in_flight{cluster="test",node="` + string(leader) + `"`, "quorate_replication_in_flight_size_bytes{", "quorate_snapshot_build_last_rate_bytes_per_second{",
		`quorate_pebble_disk_size_bytes{cluster="test",node="n1"`, "quorate_pebble_write_amplification_ratio{", "quorate_snapshots_total{", "quorate_snapshot_moved_bytes_total{", `quorate_store="log"`, `quorate_store="state"`, `quorate_level="6"`, "quorate_pebble_cache_hits_total{",
		`quorate_channel="target"`, `quorate_channel="replies"`, `quorate_channel="progress"`, `quorate_channel="durable"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	if t.Failed() {
		t.Log(body)
	}
}

// A sampled put leaves its trace id beside a bucket of the leader's histogram, for those who ask in the format that has room for it.
func TestExemplarsLinkHistogramsToTraces(t *testing.T) {
	logger := slog.New(slog.DiscardHandler)
	observation, err := (&observeFlags{metricsListen: "127.0.0.1:0"}).start(logger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { observation.end(context.WithoutCancel(t.Context())) })
	ctx, c := startMeasured(t, observation)
	if _, err := c.waitReady(ctx); err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect(c.server.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tracer := sdktrace.NewTracerProvider()
	client, err := kv.NewClient(conn, "test", kv.WithTelemetry(telemetry.New(telemetry.Options{TracerProvider: tracer, NoRoots: true})))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	traced, root := tracer.Tracer("test").Start(ctx, "test")
	if _, err := client.Put(traced, "key", nil); err != nil {
		t.Fatal(err)
	}
	root.End()
	_, body := fetch(t, observation, "/metrics", "Accept", "application/openmetrics-text;version=1.0.0")
	exemplar := regexp.MustCompile(`(?m)^quorate_propose_duration_seconds_bucket\{.* # \{.*trace_id="` + root.SpanContext().TraceID().String())
	if !exemplar.MatchString(body) {
		t.Errorf("no exemplar of trace %v in\n%s", root.SpanContext().TraceID(), body)
	}
}

// startMeasured starts three nodes in this process, whose metrics are served.
func startMeasured(t *testing.T, observation *observation) (context.Context, *devCluster) {
	t.Helper()
	dir, err := ephemeralDevDir(devLayout{Format: devFormat, Cluster: "test", Nodes: []raft.NodeID{"n1", "n2", "n3"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	c, err := startDevCluster(ctx, dir, 0, 1<<20, observation, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.close(context.WithoutCancel(ctx)) })
	return ctx, c
}

// fetch gets a page, with a header if one is given.
func fetch(t *testing.T, o *observation, path string, header ...string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+o.server.address()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(header) == 2 {
		request.Header.Set(header[0], header[1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// patient is a node whose status a test sets.
type patient struct {
	status node.Status
	err    error
}

func (p *patient) Status() node.Status { return p.status }
func (p *patient) Err() error          { return p.err }

func TestReadyTellsWhatIsWrong(t *testing.T) {
	well := node.Status{Leader: "n1", LastIndex: 20_000, DurableIndex: 20_000, CommittedIndex: 20_000, AppliedIndex: 20_000}
	now := time.Now()
	for _, tc := range []struct {
		name   string
		change func(*patient)
		want   string
	}{
		{"well", func(*patient) {}, ""},
		{"no leader", func(p *patient) { p.status.Leader = "" }, "it knows no leader"},
		{"applied far behind", func(p *patient) { p.status.AppliedIndex = 5 }, "its state is 19995 entries behind what is committed"},
		{"a disk that stands still", func(p *patient) { p.status.DurableIndex = 19_000 }, "its disk makes no progress: entry 19000 is durable, 20000 is the newest"},
		{"no quorum", func(p *patient) { p.status.CommittedIndex = 19_000 }, "nothing is being committed: entry 19000 is, 20000 is the newest"},
		{"stopped", func(p *patient) { p.err = errors.New("disk") }, "it has stopped: disk"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &patient{status: well}
			tc.change(p)
			h := newHealth("n1", p)
			_ = h.readyAt(now)
			err := h.readyAt(now.Add(stallAfter))
			if got := fmt.Sprint(err); got != tc.want && (err != nil || tc.want != "") {
				t.Errorf("ready says %q, want %q", got, tc.want)
			}
			if tc.want == "" || p.err != nil {
				return
			}
			p.status = well
			if err := h.readyAt(now.Add(stallAfter + time.Second)); err != nil {
				t.Errorf("well again, but %v", err)
			}
		})
	}
}
