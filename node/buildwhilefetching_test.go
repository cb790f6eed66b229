package node_test

import (
	"context"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/objectstore"
)

// bulky is a journal whose snapshots have several parts: the commands, and some random bytes that depend on how many they are.
type bulky struct{ *journal }

const bulk = 24 << 20 // more than a part

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

// TestABuildLeavesAloneWhatIsBeingFetched: a build of the node's own, which would end while a snapshot is being fetched, works in the same
// directory.
func TestABuildLeavesAloneWhatIsBeingFetched(t *testing.T) {
	c := newCluster(t, "n1", "n2", "n3")
	shared := objectstore.NewDirectory(vfs.Default, t.TempDir())
	halting := map[raft.NodeID]*haltingParts{}
	network := c.overMemory(func(cfg *node.Config) {
		cfg.SnapshotEntries, cfg.KeepEntries, cfg.SnapshotRate = 50, 10, 1<<30
		cfg.HeartbeatInterval, cfg.ElectionTimeout = 100*time.Millisecond, 2*time.Second
		halting[cfg.ID] = &haltingParts{Blobs: shared, release: make(chan struct{})}
		cfg.Snapshots = halting[cfg.ID]
	})
	c.startAs(func(_ raft.NodeID, j *journal) node.StateMachine { return bulky{j} }, c.members...)
	want := c.fill(nil, 5)
	late := c.notLeading(c.leader())
	begun, goOn := c.states[late].pause()
	want = c.fill(want, 60)
	await(t, "a build", begun)
	_, want = c.cutOff(network, late, want)
	network.Heal()
	waitFor(t, "a part that is fetched", func() bool {
		parts, _ := filepath.Glob(filepath.Join(c.dir, string(late), "snapshots", "part-*"))
		return slices.ContainsFunc(parts, func(name string) bool { return filepath.Ext(name) != ".tmp" })
	})
	close(goOn) // the build, if it is still there, ends
	if s, err := c.nodes[late].Wait(within(t, 60*time.Second), func(s node.Status) bool { return !s.Snapshot.Building }); err != nil {
		t.Fatalf("%v: %+v", err, s)
	}
	close(halting[late].release) // and the fetch
	c.holds(late, want)
}
