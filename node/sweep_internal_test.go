package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/objectstore"
)

// storeSnapshot puts a snapshot of that content into a store.
func storeSnapshot(t *testing.T, blobs objectstore.Blobs, cluster raft.ClusterID, index uint64, content string, system ...SystemRecord) storage.SnapshotRef {
	t.Helper()
	u, err := objectstore.Begin(t.Context(), blobs, cluster, objectstore.UploadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Abort()
	l := u.Layer(raft.LogID{})
	_, err = io.WriteString(l, content)
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	ref, _, err := u.Commit(t.Context(), storage.SnapshotMeta{Last: raft.LogID{Term: 1, Index: index}, Membership: raft.NewMembership(raft.Peer{ID: "n1", Incarnation: 1}), System: system})
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// busy is a store in which another node's snapshot becomes complete while the manifests of a listing are read.
type busy struct {
	objectstore.Blobs
	then func()
}

func (b *busy) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if then := b.then; then != nil {
		b.then = nil
		then()
	}
	return b.Blobs.Get(ctx, name)
}

func TestASweepSparesWhatBecameCompleteMeanwhile(t *testing.T) {
	d := objectstore.NewDirectory(vfs.NewMem(), "/s")
	for i := range uint64(3) {
		storeSnapshot(t, d, raft.ClusterID{1}, 10*(i+1), fmt.Sprint("state ", i))
	}
	var newer storage.SnapshotRef
	b := &busy{Blobs: d, then: func() { newer = storeSnapshot(t, d, raft.ClusterID{1}, 40, "of the new leader") }}
	if err := sweepSnapshots(t.Context(), b, raft.ClusterID{1}, 2, nil, 10*time.Minute); err != nil {
		t.Fatal(err)
	}
	if refs, _, err := objectstore.List(t.Context(), d); err != nil || len(refs) != 3 || refs[0] != newer {
		t.Errorf("%v are left, not the newest two and the new leader's of %v (%v)", refs, newer.Last, err)
	}
}

// lagging is a store a replica of which has not got a blob yet: so many reads do not find it.
type lagging struct {
	objectstore.Blobs
	name  string
	reads int
}

func (l *lagging) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if name == l.name && l.reads > 0 {
		l.reads--
		return nil, objectstore.ErrNotFound
	}
	return l.Blobs.Get(ctx, name)
}

func TestALaggingReplicaDoesNotCostTheNewestSnapshot(t *testing.T) {
	d := objectstore.NewDirectory(vfs.NewMem(), "/s")
	var newest storage.SnapshotRef
	for i := range uint64(3) {
		newest = storeSnapshot(t, d, raft.ClusterID{1}, 10*(i+1), fmt.Sprint("state ", i))
	}
	if ref, err := objectstore.Newest(t.Context(), &lagging{d, newest.Name, 1}); err != nil || ref != newest {
		t.Errorf("the newest snapshot: %v, %v", ref.Last, err)
	}
	// One that is not found for longer could be any: nothing is deleted until it is known what it needs.
	if err := sweepSnapshots(t.Context(), &lagging{d, newest.Name, 100}, raft.ClusterID{1}, 2, nil, 0); !errors.Is(err, objectstore.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if refs, _, err := objectstore.List(t.Context(), d); err != nil || len(refs) != 3 {
		t.Fatalf("%v are left (%v)", refs, err)
	}
	if err := sweepSnapshots(t.Context(), &lagging{d, newest.Name, 1}, raft.ClusterID{1}, 2, nil, 0); err != nil {
		t.Fatal(err)
	}
	if refs, _, err := objectstore.List(t.Context(), d); err != nil || len(refs) != 2 || refs[0] != newest {
		t.Errorf("%v are left (%v)", refs, err)
	}
	// Neither does it make a build fail that has just put its manifest.
	b := &builder{cluster: raft.ClusterID{1}, view: deltaView{}, meta: storage.SnapshotMeta{Last: raft.LogID{Term: 1, Index: 40}, Membership: raft.NewMembership(raft.Peer{ID: "n1", Incarnation: 1})}}
	b.shared = &laggingBehindPuts{lagging{Blobs: d}}
	var r built
	if b.run(t.Context(), &r); r.err != nil || r.manifest == nil {
		t.Error(r.err)
	}
}

// laggingBehindPuts lags behind each blob that is put.
type laggingBehindPuts struct{ lagging }

func (l *laggingBehindPuts) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	l.name, l.reads = name, 1
	return l.Blobs.Put(ctx, name, size, r)
}

// deltaView is a state of which whole and difference can be told apart.
type deltaView struct{}

func (deltaView) WriteTo(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "whole state of this cluster")
	return err
}
func (deltaView) WriteDeltaTo(_ context.Context, since raft.LogID, w io.Writer) error {
	_, err := fmt.Fprint(w, ", and what changed since ", since.Index)
	return err
}
func (deltaView) Close() error { return nil }
