package kv_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/raft"
	"quorate/telemetry"
	"quorate/test/otlp"
)

// tracedCluster is a cluster whose nodes, and one client, record their spans in one place, each under its own name.
type tracedCluster struct {
	*cluster
	// spans are where they go: an exporter to memory, or a receiver.
	spans  interface{ GetSpans() tracetest.SpanStubs }
	caller *telemetry.Telemetry // of the client's user
	client *kv.Client
}

func newTracedCluster(t *testing.T) *tracedCluster {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	return startTracedCluster(t, spans, func(name string) telemetry.Options {
		of := resource.NewSchemaless(telemetry.NodeKey.String(name))
		return telemetry.Options{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans), sdktrace.WithResource(of))}
	})
}

// newExportingCluster is newTracedCluster with all set up by the OTEL_* variables, and spans that go to a real receiver over gRPC.
func newExportingCluster(t *testing.T) *tracedCluster {
	t.Helper()
	receiver := otlp.Start(t)
	for name, value := range receiver.Environment() {
		t.Setenv(name, value)
	}
	return startTracedCluster(t, receiver, func(name string) telemetry.Options {
		p, err := telemetry.Setup(t.Context(), telemetry.SetupOptions{Cluster: "test", Node: name})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Shutdown(within(t, 10*time.Second)); err != nil {
				t.Error(err)
			}
		})
		return telemetry.Options{Recorder: p.Recorder}
	})
}

func startTracedCluster(t *testing.T, spans interface{ GetSpans() tracetest.SpanStubs }, recording func(name string) telemetry.Options) *tracedCluster {
	t.Helper()
	below := func(o telemetry.Options) *telemetry.Telemetry { // what is sampled
		o.NoRoots = true
		return telemetry.New(o)
	}
	client := recording("client")
	c := &tracedCluster{spans: spans, caller: telemetry.New(client)}
	c.cluster = startCluster(t)
	c.members = []raft.NodeID{"n1", "n2", "n3"}
	c.tune = func(config *node.Config) {
		// A leader that has lost its followers takes what it is sent for as long.
		config.HeartbeatInterval, config.ElectionTimeout = 50*time.Millisecond, 3*time.Second
		config.Telemetry = below(recording(string(config.ID)))
	}
	for _, id := range c.members {
		c.start(id)
	}
	c.nodes["n1"].elects(t)
	c.client = c.cluster.client(kv.WithTelemetry(below(client)))
	return c
}

// trace runs f below the root of a new trace.
func (c *tracedCluster) trace(f func(context.Context)) trace.TraceID {
	c.t.Helper()
	root := c.caller.Begin(trace.SpanContext{}, "test", "test", time.Time{})
	f(root.In(within(c.t, 30*time.Second)))
	root.End(time.Time{}, nil)
	return root.Context().TraceID()
}

// of returns the spans of a trace that have ended.
func (c *tracedCluster) of(id trace.TraceID) spanTree {
	var tree spanTree
	for _, s := range c.spans.GetSpans() {
		if s.SpanContext.TraceID() == id {
			tree = append(tree, s)
		}
	}
	return tree
}

// await waits until a trace has as many spans of each name.
func (c *tracedCluster) await(id trace.TraceID, want map[string]int) spanTree {
	c.t.Helper()
	var tree spanTree
	missing := func() (list string) {
		tree = c.of(id)
		for name, n := range want {
			if got := len(tree.named(name)); got < n {
				list += fmt.Sprintf(" %s %d of %d", name, got, n)
			}
		}
		return list
	}
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for list := missing(); list != ""; list = missing() {
		select {
		case <-tick.C:
		case <-deadline:
			c.t.Fatalf("missing:%s, of\n%s", list, tree)
		}
	}
	return tree
}

type spanTree []tracetest.SpanStub

func (t spanTree) named(name string) (found []tracetest.SpanStub) {
	for _, s := range t {
		if label(s) == name {
			found = append(found, s)
		}
	}
	return found
}

// label is the span's name; that of a client's span has "?" behind it, and a server's "!", where both have one name.
func label(s tracetest.SpanStub) string {
	if strings.HasPrefix(s.Name, "kv.") {
		return s.Name + map[trace.SpanKind]string{trace.SpanKindClient: "?", trace.SpanKindServer: "!"}[s.SpanKind]
	}
	return s.Name
}

func (t spanTree) parent(s tracetest.SpanStub) (tracetest.SpanStub, bool) {
	for _, p := range t {
		if p.SpanContext.SpanID() == s.Parent.SpanID() {
			return p, true
		}
	}
	return tracetest.SpanStub{}, false
}

func nodeOf(s tracetest.SpanStub) string {
	v, _ := s.Resource.Set().Value(telemetry.NodeKey)
	return v.AsString()
}

func attributeOf(s tracetest.SpanStub, key attribute.Key) string {
	for _, kv := range s.Attributes {
		if kv.Key == key {
			return kv.Value.String()
		}
	}
	return ""
}

// rows describes the tree, one line a span: where, what, and below what.
func (t spanTree) rows() []string {
	var rows []string
	for _, s := range t {
		below := "nothing"
		if p, ok := t.parent(s); ok {
			below = label(p) + " at " + nodeOf(p)
		}
		rows = append(rows, fmt.Sprintf("%s %s at %s (%s)", below, label(s), nodeOf(s), attributeOf(s, telemetry.GoroutineKey)))
	}
	slices.Sort(rows)
	return rows
}

func (t spanTree) String() string { return strings.Join(t.rows(), "\n") }

func TestOnePutIsOneTraceThroughEveryChannel(t *testing.T) {
	for name, start := range map[string]func(*testing.T) *tracedCluster{"in memory": newTracedCluster, "over OTLP": newExportingCluster} {
		t.Run(name, func(t *testing.T) { onePut(t, start(t)) })
	}
}

func onePut(t *testing.T, c *tracedCluster) {
	if _, err := c.client.Put(within(t, 30*time.Second), "before", nil); err != nil { // a leader, a session
		t.Fatal(err)
	}
	id := c.trace(func(ctx context.Context) {
		if _, err := c.client.Put(ctx, "key", []byte("value")); err != nil {
			t.Fatal(err)
		}
	})
	tree := c.await(id, map[string]int{"test": 1, "kv.put?": 1, "kv.put!": 1, "raft.propose": 1, "raft.replicate": 2, "raft.append_entries": 2, "raft.append": 3,
		"raft.queue": 3, "raft.commit": 1, "raft.apply": 1})
	leader := nodeOf(tree.named("raft.propose")[0])
	want := []string{
		"nothing test at client (test)",
		"test at client kv.put? at client (client)",
		"kv.put? at client kv.put! at LEADER (kv service)",
		"kv.put! at LEADER raft.propose at LEADER (caller)",
		"raft.propose at LEADER raft.queue at LEADER (RaftCore)",
		"raft.propose at LEADER raft.append at LEADER (RaftCore)",
		"raft.propose at LEADER raft.commit at LEADER (RaftCore)",
		"raft.propose at LEADER raft.apply at LEADER (RaftCore)",
	}
	for _, id := range c.members {
		if follower := string(id); follower != leader {
			want = append(want,
				"raft.propose at LEADER raft.replicate at LEADER (worker "+follower+")",
				"raft.replicate at LEADER raft.append_entries at "+follower+" (RaftCore)",
				"raft.append_entries at "+follower+" raft.queue at "+follower+" (RaftCore)",
				"raft.append_entries at "+follower+" raft.append at "+follower+" (RaftCore)",
			)
		}
	}
	for i := range want {
		want[i] = strings.ReplaceAll(want[i], "LEADER", leader)
	}
	slices.Sort(want)
	if got := tree.rows(); !slices.Equal(got, want) {
		t.Errorf("the trace is\n%s\nwant\n%s", tree, strings.Join(want, "\n"))
	}
	for _, s := range tree {
		if s.EndTime.Before(s.StartTime) {
			t.Errorf("%s at %s ends %v before it begins", s.Name, nodeOf(s), s.StartTime.Sub(s.EndTime))
		}
		if p, ok := tree.parent(s); ok && s.StartTime.Before(p.StartTime) {
			t.Errorf("%s at %s begins %v before its parent %s", s.Name, nodeOf(s), p.StartTime.Sub(s.StartTime), p.Name)
		}
		if s.Status.Code == codes.Error {
			t.Errorf("%s at %s failed: %s", s.Name, nodeOf(s), s.Status.Description)
		}
	}
}

func TestWhatIsNotSampledIsNotTraced(t *testing.T) {
	t.Parallel()
	c := newTracedCluster(t)
	ctx := within(t, 30*time.Second)
	if _, err := c.client.Put(ctx, "key", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.client.Get(ctx, "key"); err != nil {
		t.Fatal(err)
	}
	if spans := c.spans.GetSpans(); len(spans) > 0 {
		t.Errorf("nobody asked for spans, but there is %s", spans[0].Name)
	}
}

func TestGetIsOneTrace(t *testing.T) {
	t.Parallel()
	c := newTracedCluster(t)
	if _, err := c.client.Put(within(t, 30*time.Second), "key", nil); err != nil {
		t.Fatal(err)
	}
	id := c.trace(func(ctx context.Context) {
		if _, err := c.client.Get(ctx, "key"); err != nil {
			t.Fatal(err)
		}
	})
	tree := c.await(id, map[string]int{"test": 1, "kv.get?": 1, "kv.get!": 1, "raft.read": 1, "raft.queue": 1})
	leader := nodeOf(tree.named("raft.read")[0])
	want := []string{
		"kv.get! at " + leader + " raft.read at " + leader + " (caller)",
		"kv.get? at client kv.get! at " + leader + " (kv service)",
		"nothing test at client (test)",
		"raft.read at " + leader + " raft.queue at " + leader + " (RaftCore)",
		"test at client kv.get? at client (client)",
	}
	if got := tree.rows(); !slices.Equal(got, want) {
		t.Errorf("the trace is\n%s\nwant\n%s", tree, strings.Join(want, "\n"))
	}
}

// Of the puts that share a message each has a span at the service, below its own client's and in its own trace; one of them is the parent of what is
// done for all, and the others are linked with it.
func TestPutsInOneMessageKeepTheirTraces(t *testing.T) {
	t.Parallel()
	c := newTracedCluster(t)
	setup := within(t, 30*time.Second)
	if _, err := c.client.Put(setup, "before", nil); err != nil {
		t.Fatal(err)
	}
	// Puts come together when messages are under way already.
	const puts = 64
	ids := make([]trace.TraceID, puts)
	var group sync.WaitGroup
	for i := range puts {
		group.Go(func() {
			ids[i] = c.trace(func(ctx context.Context) {
				if _, err := c.client.Put(ctx, fmt.Sprint("key", i), nil); err != nil {
					t.Error(err)
				}
			})
		})
	}
	group.Wait()
	byTrace := map[trace.TraceID]bool{}
	linked := 0
	for _, id := range ids {
		tree := c.await(id, map[string]int{"kv.put?": 1, "kv.put!": 1})
		byTrace[id] = true
		server := tree.named("kv.put!")[0]
		if p, ok := tree.parent(server); !ok || label(p) != "kv.put?" {
			t.Errorf("the service's span is not below the client's in\n%s", tree)
		}
		if len(server.Links) == 0 {
			continue
		}
		linked++
		to := server.Links[0].SpanContext
		if len(c.of(to.TraceID()).named("raft.propose")) != 1 {
			t.Errorf("the link of %v leads to a trace without the proposal: %s", id, c.of(to.TraceID()))
		}
	}
	if len(byTrace) != puts {
		t.Errorf("%d traces of %d puts", len(byTrace), puts)
	}
	if linked == 0 {
		t.Error("no two puts shared a message")
	}
}

// Reads of every kind have the client's span, the service's below it, and what they waited for below that.
func TestReadsOfEveryKindAreTraced(t *testing.T) {
	t.Parallel()
	c := newTracedCluster(t)
	setup := within(t, 30*time.Second)
	revision, err := c.client.Put(setup, "key", nil)
	if err != nil {
		t.Fatal(err)
	}
	leader, err := c.client.Leader(setup)
	if err != nil {
		t.Fatal(err)
	}
	follower := "n1"
	if follower == leader {
		follower = "n2"
	}
	if _, err := c.nodes[raft.NodeID(follower)].Wait(setup, func(s node.Status) bool { return s.AppliedIndex >= revision }); err != nil {
		t.Fatal(err) // it reads its own state
	}
	lease := time.Second
	if _, err := c.nodes[raft.NodeID(leader)].ChangeSetting(setup, node.SettingChange{Lease: &lease}); err != nil {
		t.Fatal(err)
	}
	list := func(ctx context.Context, opts ...kv.ReadOption) error {
		for _, err := range c.client.List(ctx, "", false, opts...) {
			if err != nil {
				return err
			}
		}
		return nil
	}
	get := func(ctx context.Context, opts ...kv.ReadOption) error {
		_, err := c.client.Get(ctx, "key", opts...)
		return err
	}
	for _, tc := range []struct {
		name, span string
		read       func(context.Context, ...kv.ReadOption) error
		options    []kv.ReadOption
		want       []string
	}{
		{"list", "kv.list", list, nil, []string{"kv.list! at LEADER raft.read at LEADER (caller)"}},
		{"local list", "kv.list", list, []kv.ReadOption{kv.Local(nil), kv.FromNode(follower)}, nil},
		{"local get", "kv.get", get, []kv.ReadOption{kv.Local(nil), kv.FromNode(follower)}, nil},
		{"get at a follower", "kv.get", get, []kv.ReadOption{kv.FromNode(follower)},
			[]string{"kv.get! at FOLLOWER raft.read at FOLLOWER (caller)", "raft.read at FOLLOWER raft.read_index at FOLLOWER (RaftCore)", "raft.read_index at FOLLOWER raft.read at LEADER (caller)"}},
		{"get under the lease", "kv.get", get, []kv.ReadOption{kv.Lease(nil)}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id := c.trace(func(ctx context.Context) {
				if err := tc.read(ctx, tc.options...); err != nil {
					t.Fatal(err)
				}
			})
			tree := c.await(id, map[string]int{"test": 1, tc.span + "?": 1, tc.span + "!": 1})
			at := nodeOf(tree.named(tc.span + "!")[0])
			want := append(tc.want, "nothing test at client (test)", "test at client "+tc.span+"? at client (client)",
				tc.span+"? at client "+tc.span+"! at "+at+" (kv service)")
			for _, row := range want {
				row = strings.NewReplacer("LEADER", leader, "FOLLOWER", follower).Replace(row)
				if !slices.Contains(c.await(id, nil).rows(), row) {
					t.Errorf("no row %q in\n%s", row, tree)
				}
			}
		})
	}
	id := c.trace(func(ctx context.Context) {
		if _, err := c.client.Get(ctx, "no such key", kv.FromNode(follower)); err == nil {
			t.Fatal("it is found")
		}
	})
	c.await(id, map[string]int{"kv.get?": 1, "kv.get!": 1})
}

// The leader takes a put that it cannot commit, and is stopped with it in its hands: the client sends it again, to the next leader. All of that is one trace.
func TestTraceContextSurvivesALeaderChange(t *testing.T) {
	t.Parallel()
	c := newTracedCluster(t)
	setup := within(t, time.Minute)
	if _, err := c.client.Put(setup, "before", nil); err != nil {
		t.Fatal(err)
	}
	old, err := c.client.Leader(setup)
	if err != nil {
		t.Fatal(err)
	}
	var others []raft.NodeID
	for _, id := range c.members {
		if string(id) != old {
			others = append(others, id)
			c.nodes[id].stop()
		}
	}
	root := c.caller.Begin(trace.SpanContext{}, "test", "test", time.Time{})
	ctx, id := root.In(setup), root.Context().TraceID()
	done := make(chan error, 1)
	go func() {
		_, err := c.client.Put(ctx, "key", []byte("value"))
		root.End(time.Time{}, nil)
		done <- err
	}()
	taken := c.await(id, map[string]int{"raft.queue": 1})
	if at := nodeOf(taken.named("raft.queue")[0]); at != old {
		t.Fatalf("%s took the put, not %s", at, old)
	}
	c.nodes[raft.NodeID(old)].stop()
	for _, id := range others {
		c.start(id)
	}
	c.nodes[others[0]].elects(t)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	tree := c.await(id, map[string]int{"test": 1, "kv.put?": 1, "kv.put!": 2, "raft.propose": 2, "raft.append_entries": 1, "raft.commit": 1, "raft.apply": 1})
	for _, s := range tree {
		if _, ok := tree.parent(s); !ok && s.Name != "test" {
			t.Errorf("%s at %s has no parent in the trace", s.Name, nodeOf(s))
		}
		first := nodeOf(s) == old
		switch failed := s.Status.Code == codes.Error; {
		case (s.Name == "raft.commit" || s.Name == "raft.apply") && first:
			t.Errorf("%s at %s, which had no quorum", s.Name, old)
		case (s.Name == "raft.propose" || label(s) == "kv.put!") && failed != first:
			t.Errorf("%s at %s: error %q", s.Name, nodeOf(s), s.Status.Description)
		}
	}
}

// What the client has decided not to sample begins no trace at the service or the node, though they sample all that nobody has decided about.
func TestWhetherARequestIsSampledIsDecidedOnce(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewInMemoryExporter()
	all := telemetry.New(telemetry.Options{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))})
	few := telemetry.New(telemetry.Options{TracerProvider: sdktrace.NewTracerProvider(), RootRatio: 1e-12})
	c := startCluster(t)
	c.members = []raft.NodeID{"n1", "n2", "n3"}
	c.tune = func(config *node.Config) { config.Telemetry = all }
	for _, id := range c.members {
		c.start(id)
	}
	ctx := within(t, 30*time.Second)
	use := func(client *kv.Client) {
		t.Helper()
		c.put(ctx, client, 0, 3, "value")
		leader, err := client.Leader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, how := range [][]kv.ReadOption{nil, {kv.FromNode(leader)}} {
			if _, err := client.Get(ctx, "k000", how...); err != nil {
				t.Fatal(err)
			}
			for _, err := range client.List(ctx, "k", false, how...) {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	requests := func() (names []string) {
		for _, s := range spans.GetSpans() {
			if strings.HasPrefix(s.Name, "kv.") || s.Name == "raft.read" {
				names = append(names, s.Name)
			}
		}
		return names
	}
	use(c.client(kv.WithTelemetry(few)))
	if got := requests(); len(got) > 0 {
		t.Errorf("of requests that are not sampled there are %v", got)
	}
	use(c.client())
	if got := requests(); len(got) < 3+2*4 {
		t.Errorf("of requests about which nothing was decided there are only %v", got)
	}
}
