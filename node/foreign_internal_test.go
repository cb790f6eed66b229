package node

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/objectstore"
)

// A store may have snapshots of a cluster that was given up: the one in its place neither builds on them, nor counts or removes them.
func TestASnapshotBuildsOnNoOtherCluster(t *testing.T) {
	d := objectstore.NewDirectory(vfs.NewMem(), "/s")
	ours, other := raft.ClusterID{2}, raft.ClusterID{1}
	storeSnapshot(t, d, ours, 40, "long ago")
	stays := []storage.SnapshotRef{
		storeSnapshot(t, d, ours, 50, "our state"),
		storeSnapshot(t, d, other, 100, "state of the cluster that was given up"),
		storeSnapshot(t, d, other, 200, "a later one"),
	}
	b := &builder{
		cluster: ours, shared: d, view: deltaView{},
		meta: storage.SnapshotMeta{Last: raft.LogID{Term: 3, Index: 1 << 33}, Membership: raft.NewMembership(raft.Peer{ID: "n1", Incarnation: 9})},
	}
	var r built
	if b.run(t.Context(), &r); r.err != nil {
		t.Fatal(r.err)
	}
	content, err := io.ReadAll(objectstore.Reader(t.Context(), d, r.manifest, objectstore.Retry{}))
	if want := "our state, and what changed since 50"; err != nil || string(content) != want {
		t.Errorf("the snapshot is %q, want %q (%v)", content, want, err)
	}
	refs, _, err := objectstore.List(t.Context(), d)
	for _, ref := range append(stays, r.ref) {
		if !slices.Contains(refs, ref) {
			t.Errorf("the snapshot of %v is gone (%v)", ref.Last, err)
		}
	}
	if len(refs) != len(stays)+1 {
		t.Errorf("%v are left", refs)
	}
}

// memoryState is a state machine in memory that can be restored.
type memoryState struct{ content string }

func (s *memoryState) Apply(Batch) ([][]byte, error) { return nil, nil }
func (s *memoryState) Snapshot() (Snapshot, error)   { return deltaView{}, nil }
func (s *memoryState) Close() error                  { return nil }
func (s *memoryState) Restore(_ context.Context, _ SnapshotMeta, r io.Reader) error {
	b, err := io.ReadAll(r)
	s.content = string(b)
	return err
}

// What a fetch refuses, because it is another cluster's, is not what the node begins with after a restart, nor costs it what it had. Neither is
// what lies there already.
func TestARefusedSnapshotIsNotTheStateAfterARestart(t *testing.T) {
	ours, other := raft.ClusterID{1}, raft.ClusterID{2}
	dir := t.TempDir()
	local := objectstore.NewDirectory(vfs.Default, filepath.Join(dir, snapshotsDir))
	shared := objectstore.NewDirectory(vfs.NewMem(), "/shared")
	own := storeSnapshot(t, local, ours, 50, "our state") // the log is purged up to it
	foreign := storeSnapshot(t, shared, other, 100, "another cluster's state")
	sm := &memoryState{}
	f := &fetcher{from: shared, to: local, ref: foreign, cluster: ours, sm: sm, progress: &fetchProgress{}, inMemory: true}
	for range 2 { // it is offered again
		if err := f.fetch(t.Context(), &fetched{}); err == nil || !strings.Contains(err.Error(), "not of this cluster") {
			t.Fatalf("not refused: %v", err)
		}
	}
	if blobs, err := local.List(t.Context()); err != nil || len(blobs) != 2 {
		t.Errorf("in the node's directory, beside its own manifest and part: %v (%v)", blobs, err)
	}
	storeSnapshot(t, local, other, 200, "another cluster's state")
	r := restored{cluster: ours, settings: make([]raft.SettingAt, 1)}
	if err := (&Node{cfg: Config{Dir: dir}, sm: sm}).restoreLocal(&r); err != nil || sm.content != "our state" || r.local != own.Last {
		t.Errorf("after a restart the state is %q, up to %v (%v)", sm.content, r.applied, err)
	}
}

// Neither is one of a version that the node does not speak, which is known only from its records, also when these are in parts of their own.
func TestASnapshotOfANewerVersionIsNotTheStateAfterARestart(t *testing.T) {
	cluster := raft.ClusterID{1}
	setting, err := encodeSettingRecord(raft.SettingAt{ID: raft.LogID{Term: 1, Index: 9}, Setting: raft.Setting{Versions: raft.Versions{Command: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{10, 2 << 20} {
		local, shared := objectstore.NewDirectory(vfs.NewMem(), "/local"), objectstore.NewDirectory(vfs.NewMem(), "/shared")
		newer := storeSnapshot(t, shared, cluster, 100, "state", SystemRecord{Key: "large", Value: make([]byte, size)}, setting)
		f := &fetcher{from: shared, to: local, ref: newer, cluster: cluster, sm: &memoryState{}, progress: &fetchProgress{}, inMemory: true}
		if err := f.fetch(t.Context(), &fetched{}); !errors.Is(err, ErrUpgrade) {
			t.Fatalf("records of %d bytes: not refused: %v", size, err)
		}
		if refs, _, err := objectstore.List(t.Context(), local); err != nil || len(refs) > 0 {
			t.Errorf("records of %d bytes: in the node's directory: %v (%v)", size, refs, err)
		}
	}
}
