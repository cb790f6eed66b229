package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
	"quorate/storage/objectstore"
	"quorate/transport"
	"quorate/transport/memnet"
)

// timesMachine is durable, and remembers the time of its newest command.
type timesMachine struct {
	mu     sync.Mutex
	last   raft.LogID
	system map[string][]byte
	newest time.Time
}

func (m *timesMachine) Apply(batch Batch) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	results := make([][]byte, len(batch.Commands))
	for i, c := range batch.Commands {
		results[i] = fmt.Append(nil, c.Time.Sub(m.newest))
		if m.newest.IsZero() {
			results[i] = []byte("0s")
		}
		m.newest = c.Time
	}
	m.last = batch.Last
	for _, r := range batch.Records(results) {
		m.system[r.Key] = r.Value
	}
	return results, nil
}

func (m *timesMachine) Applied() (Applied, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := Applied{Last: m.last}
	for key, value := range m.system {
		if len(value) > 0 {
			a.System = append(a.System, SystemRecord{Key: key, Value: value})
		}
	}
	slices.SortFunc(a.System, func(x, y SystemRecord) int { return strings.Compare(x.Key, y.Key) })
	return a, nil
}
func (m *timesMachine) Sync(context.Context) error                             { return nil }
func (m *timesMachine) Snapshot() (Snapshot, error)                            { return timesView{}, nil }
func (m *timesMachine) Restore(context.Context, SnapshotMeta, io.Reader) error { return nil }
func (m *timesMachine) Close() error                                           { return nil }

type timesView struct{}

func (timesView) WriteTo(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "state")
	return err
}
func (timesView) Close() error { return nil }

func startAlone(t *testing.T, dir, blobs string, sm StateMachine) *Node {
	t.Helper()
	network := memnet.New(1)
	cfg := Config{Cluster: "test", ID: "n1", Members: []raft.NodeID{"n1"}, Dir: dir, Snapshots: objectstore.NewDirectory(vfs.Default, blobs)}
	cfg.ElectionTimeout = 20 * time.Second
	cfg.Transport = func(self raft.Peer, boot uint64) (transport.Transport, error) {
		return network.Join(self, boot, cfg.Logger), nil
	}
	n, err := Start(t.Context(), cfg, sm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close(context.Background()) })
	if _, err := n.Wait(t.Context(), func(s Status) bool { return s.Serving }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLogTimeDoesNotGoBackAfterAPurge: the log time does not go back when the log is purged and the node started again.
func TestLogTimeDoesNotGoBackAfterAPurge(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	dir, blobs, sm := t.TempDir(), t.TempDir(), &timesMachine{system: map[string][]byte{}}
	n := startAlone(t, dir, blobs, sm)
	// The clock of the leader was ahead for a while.
	_, err := inCore(ctx, n, func(c *raftCore) (struct{}, error) {
		c.lastTime = time.Now().Add(time.Hour).UnixNano()
		return struct{}{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Propose(ctx, []byte("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Snapshot(ctx); err != nil {
		t.Fatal(err)
	}
	if id, err := n.Purge(ctx, math.MaxUint64); err != nil || id.Index != n.Status().AppliedIndex-1 {
		t.Fatalf("purged up to %v: %v", id, err)
	}
	if err := n.Close(ctx); err != nil {
		t.Fatal(err)
	}
	timeGoesOn(ctx, t, startAlone(t, dir, blobs, sm))
}

// hold has RaftCore wait until the returned function is called.
func hold(ctx context.Context, n *Node) (release func()) {
	held, free := make(chan struct{}), make(chan struct{})
	go func() {
		_, _ = inCore(ctx, n, func(*raftCore) (int, error) { close(held); <-free; return 0, nil })
	}()
	<-held
	return func() { close(free) }
}

// queued waits until so many requests and calls wait for RaftCore.
func queued(ctx context.Context, t *testing.T, n *Node, want int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for len(n.in.control)+len(n.in.api) < want {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("nothing is waiting for RaftCore")
		}
	}
}

// TestLogTimeNeverGoesBackAlongTheLog: an entry of the engine's own is no later than the proposals after it.
func TestLogTimeNeverGoesBackAlongTheLog(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	n := startAlone(t, t.TempDir(), t.TempDir(), &timesMachine{system: map[string][]byte{}})
	release := hold(ctx, n)
	done := make(chan error, 2)
	go func() {
		_, err := n.appendOwn(ctx, "setting", func(c *raftCore) (raft.LogID, error) {
			return c.engine.ChangeSetting(time.Now(), raft.Setting{Lease: time.Second})
		})
		done <- err
	}()
	go func() { _, err := n.Propose(ctx, []byte("a")); done <- err }()
	queued(ctx, t, n, 2)
	release()
	for range cap(done) {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	entries, err := n.log.Entries(nil, 1, n.log.Last().Index+1, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for i := range entries[1:] {
		if before, e := entries[i], entries[i+1]; e.Time < before.Time {
			t.Errorf("entry %v (kind %d) is %v before entry %v (kind %d)", e.ID, e.Kind, time.Duration(before.Time-e.Time), before.ID, before.Kind)
		}
	}
}

// TestAProposalThatComesWithATransferIsNotSentToItsOwnNode: it waits for the end of the transfer, as those that come later do.
func TestAProposalThatComesWithATransferIsNotSentToItsOwnNode(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	network := memnet.New(1)
	ids := []raft.NodeID{"n1", "n2", "n3"}
	nodes := map[raft.NodeID]*Node{}
	for _, id := range ids {
		cfg := Config{Cluster: "test", ID: id, Members: ids, Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
		cfg.Transport = func(self raft.Peer, boot uint64) (transport.Transport, error) {
			return network.Join(self, boot, cfg.Logger), nil
		}
		n, err := Start(ctx, cfg, &timesMachine{system: map[string][]byte{}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close(context.Background()) })
		nodes[id] = n
	}
	s, err := nodes["n1"].Wait(ctx, func(s Status) bool { return s.Leader != "" })
	if err != nil {
		t.Fatal(err)
	}
	leader := nodes[s.Leader]
	caughtUp := func(s Status) bool {
		matched := 0
		for _, m := range s.Members {
			if m.Matched == s.LastIndex {
				matched++
			}
		}
		return s.Serving && matched == len(ids)
	}
	if _, err := leader.Wait(ctx, caughtUp); err != nil {
		t.Fatal(err)
	}
	release := hold(ctx, leader)
	transferred, proposed := make(chan error, 1), make(chan error, 1)
	go func() { transferred <- leader.TransferLeadership(ctx, "") }()
	go func() { _, err := leader.Propose(ctx, []byte("a")); proposed <- err }()
	queued(ctx, t, leader, 2)
	release()
	if err := <-transferred; err != nil {
		t.Fatal(err)
	}
	var notLeader *NotLeaderError
	if err := <-proposed; errors.As(err, &notLeader) && notLeader.Leader == leader.cfg.ID || err != nil && notLeader == nil {
		t.Errorf("proposed at %s: %v", leader.cfg.ID, err)
	}
}

// timeGoesOn proposes a command, whose log time must not be before that of the one before.
func timeGoesOn(ctx context.Context, t *testing.T, n *Node) {
	t.Helper()
	r, err := n.Propose(ctx, []byte("b"))
	if err != nil {
		t.Fatal(err)
	}
	if passed, err := time.ParseDuration(string(r.Value)); err != nil || passed < 0 {
		t.Fatalf("the log time of a command is %s after that of the one before (%v)", r.Value, err)
	}
}

// TestLogTimeDoesNotGoBackAfterARecovery: the same as after a purge, when a survivor begins a new cluster.
func TestLogTimeDoesNotGoBackAfterARecovery(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	dir, blobs, sm := t.TempDir(), t.TempDir(), &timesMachine{system: map[string][]byte{}}
	n := startAlone(t, dir, blobs, sm)
	// The clock of the leader was ahead of the survivor's.
	if _, err := inCore(ctx, n, func(c *raftCore) (struct{}, error) {
		c.lastTime = time.Now().Add(time.Hour).UnixNano()
		return struct{}{}, nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Propose(ctx, []byte("a")); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := Recover(ctx, Survivor{Cluster: "test", ID: "n1", Dir: dir, Logger: slog.New(slog.DiscardHandler)}, sm, false); err != nil {
		t.Fatal(err)
	}
	timeGoesOn(ctx, t, startAlone(t, dir, blobs, sm))
}
