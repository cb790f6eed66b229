package node_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/objectstore"
	"quorate/transport"
	"quorate/transport/memnet"
)

// bulky is a journal whose snapshots have several parts: the commands, and some random bytes that depend on how many they are.
type bulky struct{ *journal }

const bulk = 40 << 20

type bulkyView struct{ *journalView }

func (v bulkyView) WriteTo(ctx context.Context, w io.Writer) error {
	if err := v.journalView.WriteTo(ctx, w); err != nil {
		return err
	}
	if _, err := io.WriteString(w, "\n\n"); err != nil {
		return err
	}
	source := rand.NewChaCha8([32]byte{byte(len(v.commands)), byte(len(v.commands) >> 8)})
	b := make([]byte, 1<<20)
	for range bulk / len(b) {
		_, _ = source.Read(b)
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (s bulky) Snapshot() (node.Snapshot, error) {
	view, err := s.journal.Snapshot()
	if err != nil {
		return nil, err
	}
	return bulkyView{view.(*journalView)}, nil
}

func (s bulky) Restore(ctx context.Context, meta node.SnapshotMeta, r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	commands, _, _ := strings.Cut(string(b), "\n\n")
	return s.journal.Restore(ctx, meta, strings.NewReader(commands))
}

// haltingParts lets one part through, and the others when it is told.
type haltingParts struct {
	objectstore.Blobs
	mu      sync.Mutex
	through bool
	release chan struct{}
}

func (h *haltingParts) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if strings.HasPrefix(name, "part-") {
		h.mu.Lock()
		first := !h.through
		h.through = true
		h.mu.Unlock()
		if !first {
			select {
			case <-h.release:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	return h.Blobs.Get(ctx, name)
}

// TestABuildLeavesAloneWhatIsBeingFetched: a build of the node's own that ends while a snapshot is being fetched leaves alone what was fetched: both are in one directory.
func TestABuildLeavesAloneWhatIsBeingFetched(t *testing.T) {
	c := newCluster(t, "n1", "n2", "n3")
	network, shared := memnet.New(1), objectstore.NewDirectory(vfs.Default, t.TempDir())
	halting := map[raft.NodeID]*haltingParts{}
	c.tune = func(cfg *node.Config) {
		cfg.SnapshotEntries, cfg.KeepEntries, cfg.SnapshotRate = 50, 10, 1<<30
		cfg.HeartbeatInterval, cfg.ElectionTimeout = 100*time.Millisecond, 2*time.Second
		h := &haltingParts{Blobs: shared, release: make(chan struct{})}
		halting[cfg.ID] = h
		cfg.Snapshots = h
		logger := cfg.Logger
		cfg.Transport = func(self raft.Peer, boot uint64) (transport.Transport, error) {
			return network.Join(self, boot, logger), nil
		}
	}
	for _, id := range c.members {
		state := &journal{}
		n, err := node.Start(t.Context(), c.config(id), bulky{state})
		if err != nil {
			t.Fatal(err)
		}
		c.nodes[id], c.states[id] = n, state
		t.Cleanup(func() { _ = n.Close(context.Background()) })
	}
	want := c.fill(nil, 5)
	late := c.notLeading(c.leader())
	state := c.states[late]
	begun, resume := make(chan struct{}, 8), make(chan struct{})
	state.mu.Lock()
	state.writing = func(ctx context.Context) error {
		begun <- struct{}{}
		select {
		case <-resume:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	state.mu.Unlock()
	want = c.fill(want, 60)
	await(t, "a build", begun)
	for _, id := range c.members {
		network.Cut(late, id)
		network.Cut(id, late)
	}
	behind := c.nodes[late].Status().LastIndex
	want = c.fill(want, 120)
	leader := c.leader()
	if s, err := leader.Wait(within(t, 90*time.Second), func(s node.Status) bool { return s.PurgedIndex > behind }); err != nil {
		t.Fatalf("%v: %+v", err, s)
	}
	network.Heal()
	dir := filepath.Join(c.dir, string(late), "snapshots")
	deadline := time.Now().Add(60 * time.Second)
	for parts := 0; parts == 0; time.Sleep(20 * time.Millisecond) { // until one part is fetched
		names, _ := os.ReadDir(dir)
		for _, name := range names {
			if strings.HasPrefix(name.Name(), "part-") && !strings.HasSuffix(name.Name(), ".tmp") {
				parts++
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no part is fetched: %+v", c.nodes[late].Status())
		}
	}
	close(resume) // the build goes on, and ends
	if s, err := c.nodes[late].Wait(within(t, 90*time.Second), func(s node.Status) bool { return !s.Snapshot.Building }); err != nil {
		t.Fatalf("%v: %+v", err, s)
	}
	close(halting[late].release) // and the fetch
	_, err := c.nodes[late].Wait(within(t, 60*time.Second), func(s node.Status) bool { return len(state.seen()) >= len(want) })
	if err != nil {
		closed := c.nodes[late].Err()
		_ = c.nodes[late].Close(context.Background())
		again := &journal{}
		n, started := node.Start(t.Context(), c.config(late), bulky{again})
		if n != nil {
			_ = n.Close(context.Background())
		}
		t.Fatalf("%v\nthe node failed: %v\nand starting it again: %v", err, closed, started)
	}
	if got := state.seen(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatal("another state")
	}
}
