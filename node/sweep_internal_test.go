package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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

// full is a store with so much room. What is there at the beginning is of long ago.
type full struct {
	objectstore.Blobs
	room int64
	old  map[string]bool
}

func (f *full) List(ctx context.Context) ([]objectstore.BlobInfo, error) {
	all, err := f.Blobs.List(ctx)
	for i := range all {
		if f.old[all[i].Name] {
			all[i].Modified = all[i].Modified.Add(-time.Hour)
		}
	}
	return all, err
}

func (f *full) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	all, err := f.Blobs.List(ctx)
	if err != nil {
		return err
	}
	left := f.room
	for _, blob := range all {
		left -= blob.Size
	}
	if size > left {
		return &objectstore.UnavailableError{Err: fmt.Errorf("%d bytes are too many for %d", size, left), Lasting: true}
	}
	return f.Blobs.Put(ctx, name, size, r)
}

// TestABuildThatFoundNoRoomMakesSome: what builds have left that were broken off, if it were removed after a build that succeeds only, would fill
// the store for ever.
func TestABuildThatFoundNoRoomMakesSome(t *testing.T) {
	store := &full{Blobs: objectstore.NewDirectory(vfs.NewMem(), "/s"), room: 4 << 10}
	before := storeSnapshot(t, store, raft.ClusterID{1}, 10, "state")
	rest := fmt.Sprintf("part-%064x", 7)
	if err := store.Put(t.Context(), rest, 3<<10, bytes.NewReader(make([]byte, 3<<10))); err != nil {
		t.Fatal(err)
	}
	store.old = map[string]bool{rest: true}
	build := func() built {
		b := &builder{cluster: raft.ClusterID{1}, shared: store, view: noisyView{}, meta: storage.SnapshotMeta{Last: raft.LogID{Term: 1, Index: 40}, Membership: raft.NewMembership(raft.Peer{ID: "n1", Incarnation: 1})}}
		var r built
		b.run(t.Context(), &r)
		return r
	}
	if r := build(); !errors.Is(r.err, objectstore.ErrUnavailable) {
		t.Fatalf("there is room for it: %v", r.err)
	}
	if r := build(); r.err != nil {
		t.Error(r.err)
	}
	refs, _, err := objectstore.List(t.Context(), store)
	if err != nil || len(refs) != 2 || refs[1] != before {
		t.Errorf("%v are left (%v)", refs, err)
	}
}

// noisyView is a state that takes 2 KiB also when it is compressed.
type noisyView struct{ deltaView }

func (noisyView) WriteTo(_ context.Context, w io.Writer) error {
	noise := make([]byte, 2<<10)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	_, err := w.Write(noise)
	return err
}
func (noisyView) WriteDeltaTo(context.Context, raft.LogID, io.Writer) error { return ErrNoDelta }
