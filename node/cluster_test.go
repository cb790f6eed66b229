package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/raft"
	"quorate/transport/embednats"
)

// journal is a state machine that remembers its commands in order and answers each with its number.
type journal struct {
	mu       sync.Mutex
	commands []string
	restored int                        // how often a snapshot was restored
	fault    func(command string) error // what Apply does instead, if it returns an error
	tell     func(error)                // the node, of a failure between two calls
	// forgets: it keeps the beginnings of commands only, so that its memory does not count.
	forgets bool
	// writing, if not nil, is called when a snapshot is written.
	writing func(ctx context.Context) error
}

// hang has snapshots hang until their context ends, and says when one begins.
func (j *journal) hang() (begun <-chan struct{}) {
	writing := make(chan struct{}, 8)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writing = func(ctx context.Context) error {
		writing <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	return writing
}

// pause has snapshots wait until they may go on, and says when one begins.
func (j *journal) pause() (begun <-chan struct{}, goOn chan<- struct{}) {
	writing, resume := make(chan struct{}, 8), make(chan struct{})
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writing = func(ctx context.Context) error {
		writing <- struct{}{}
		select {
		case <-resume:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return writing, resume
}

// write has snapshots written as usual again.
func (j *journal) write() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writing = nil
}

// meddle has f called for each command that is applied.
func (j *journal) meddle(f func(command string)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fault = func(command string) error { f(command); return nil }
}

func (j *journal) OnFailure(tell func(error)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.tell = tell
}

func (j *journal) Apply(batch node.Batch) ([][]byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var results [][]byte
	for _, c := range batch.Commands {
		if j.fault != nil {
			if err := j.fault(string(c.Data)); err != nil {
				return nil, err
			}
		}
		data := c.Data
		if j.forgets {
			data = data[:min(len(data), 8)]
		}
		j.commands = append(j.commands, string(data))
		results = append(results, fmt.Appendf(nil, "%d", len(j.commands)))
	}
	return results, nil
}

// journalView is a snapshot: the commands, one a line.
type journalView struct {
	commands []string
	writing  func(ctx context.Context) error
}

func (v *journalView) WriteTo(ctx context.Context, w io.Writer) error {
	if v.writing != nil {
		if err := v.writing(ctx); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, strings.Join(v.commands, "\n"))
	return err
}
func (v *journalView) Close() error { return nil }

func (j *journal) Snapshot() (node.Snapshot, error) {
	commands := j.seen()
	j.mu.Lock()
	defer j.mu.Unlock()
	return &journalView{commands, j.writing}, nil
}

func (j *journal) Restore(_ context.Context, _ node.SnapshotMeta, r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.commands = strings.Split(string(b), "\n")
	j.restored++
	return nil
}
func (j *journal) Close() error { return nil }

func (j *journal) seen() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.commands...)
}

// cluster is a set of nodes over one embedded NATS server, each with a directory on disk.
type cluster struct {
	t       *testing.T
	dir     string
	server  *embednats.Server
	members []raft.NodeID
	nodes   map[raft.NodeID]*node.Node
	states  map[raft.NodeID]*journal
	// tune, if not nil, changes the configuration of nodes that are started.
	tune func(*node.Config)
}

func newCluster(t *testing.T, members ...raft.NodeID) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), members: members, nodes: map[raft.NodeID]*node.Node{}, states: map[raft.NodeID]*journal{}}
	c.server = startNATS(t, -1)
	return c
}

// newStoringCluster is newCluster with JetStream, and snapshots every few entries.
func newStoringCluster(t *testing.T, members ...raft.NodeID) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), members: members, nodes: map[raft.NodeID]*node.Node{}, states: map[raft.NodeID]*journal{}}
	c.server = startNATSAt(t, -1, t.TempDir())
	c.tune = func(cfg *node.Config) { cfg.SnapshotEntries, cfg.KeepEntries = 50, 10 }
	return c
}

func startNATS(t *testing.T, port int) *embednats.Server {
	t.Helper()
	return startNATSAt(t, port, "")
}

// startNATSAt starts a server with JetStream if a directory is given.
func startNATSAt(t *testing.T, port int, dir string) *embednats.Server {
	t.Helper()
	server, err := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: port, JetStream: dir != "", Dir: dir, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server
}

func (c *cluster) config(id raft.NodeID) node.Config {
	cfg := node.Config{
		Cluster: "test", ID: id, Members: c.members, Dir: filepath.Join(c.dir, string(id)),
		URL: c.server.ClientURL(), Logger: testLogger(c.t).With("node", id),
	}
	if c.tune != nil {
		c.tune(&cfg)
	}
	return cfg
}

// join starts nodes that are to be added.
func (c *cluster) join(ids ...raft.NodeID) {
	c.t.Helper()
	tune := c.tune
	defer func() { c.tune = tune }()
	c.tune = func(cfg *node.Config) {
		cfg.Members, cfg.Join = nil, true
		if tune != nil {
			tune(cfg)
		}
	}
	c.start(ids...)
}

func (c *cluster) start(ids ...raft.NodeID) {
	c.t.Helper()
	c.startAs(func(_ raft.NodeID, j *journal) node.StateMachine { return j }, ids...)
}

// startAs starts nodes with state machines that are made of journals.
func (c *cluster) startAs(machine func(raft.NodeID, *journal) node.StateMachine, ids ...raft.NodeID) {
	c.t.Helper()
	for _, id := range ids {
		state := &journal{}
		n, err := node.Start(c.t.Context(), c.config(id), machine(id, state))
		if err != nil {
			c.t.Fatal(err)
		}
		c.nodes[id], c.states[id] = n, state
		c.t.Cleanup(func() { _ = n.Close(context.Background()) })
	}
}

func (c *cluster) stop(id raft.NodeID) {
	c.t.Helper()
	if err := c.nodes[id].Close(within(c.t, 10*time.Second)); err != nil {
		c.t.Fatal(err)
	}
	delete(c.nodes, id)
}

// leader waits until some node serves, and returns it.
func (c *cluster) leader() *node.Node {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	serving := make(chan *node.Node, len(c.nodes))
	var group sync.WaitGroup
	defer func() { cancel(); group.Wait() }()
	for _, n := range c.nodes {
		group.Go(func() {
			if _, err := n.Wait(ctx, func(s node.Status) bool { return s.Serving }); err == nil {
				serving <- n
			}
		})
	}
	select {
	case n := <-serving:
		return n
	case <-ctx.Done():
	}
	for id, n := range c.nodes {
		c.t.Logf("%s: %+v", id, n.Status())
	}
	c.t.Fatal("no leader in time")
	return nil
}

// proposed is a command that was acknowledged.
type proposed struct {
	node.Result
	text string
}

func (p proposed) command() string { return p.text }

// propose proposes until some leader takes the command. One that was lost did not take effect and is proposed again.
func (c *cluster) propose(command string) proposed {
	c.t.Helper()
	ctx := within(c.t, 20*time.Second)
	for {
		result, err := c.leader().Propose(ctx, []byte(command))
		if err == nil {
			return proposed{result, command}
		}
		var notLeader *node.NotLeaderError
		if !errors.As(err, &notLeader) && !errors.Is(err, node.ErrLost) {
			c.t.Fatal(err)
		}
	}
}

// agree waits until all running nodes have applied the same commands as want.
func (c *cluster) agree(want []string) {
	c.t.Helper()
	for id := range c.nodes {
		c.applies(id, fmt.Sprintf("%d commands", len(want)), func(seen []string) bool { return len(seen) >= len(want) })
		if got := c.states[id].seen(); fmt.Sprint(got) != fmt.Sprint(want) {
			c.t.Fatalf("%s applied %q, want %q", id, got, want)
		}
	}
}

// notLeading is one of the first members that is not this leader.
func (c *cluster) notLeading(leader *node.Node) raft.NodeID {
	return c.members[slices.IndexFunc(c.members, func(id raft.NodeID) bool { return id != leader.Config().ID })]
}

// applies waits until a node's state machine has what is wanted. The status is told after the state, so it is enough to look then.
func (c *cluster) applies(id raft.NodeID, what string, has func(seen []string) bool) {
	c.t.Helper()
	_, err := c.nodes[id].Wait(within(c.t, 60*time.Second), func(node.Status) bool { return has(c.states[id].seen()) })
	if err != nil {
		c.t.Fatalf("%s to apply %s: %v", id, what, err)
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// testLogger writes to the test's log, which is shown when it fails.
func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(&testWriter{t: t}, nil))
}

type testWriter struct {
	mu sync.Mutex
	t  *testing.T
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t.Context().Err() == nil { // the test has not ended
		w.t.Log(string(bytes.TrimSpace(p)))
	}
	return len(p), nil
}
