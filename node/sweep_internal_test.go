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
func storeSnapshot(t *testing.T, blobs objectstore.Blobs, cluster raft.ClusterID, index uint64, content string) storage.SnapshotRef {
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
	ref, _, err := u.Commit(t.Context(), storage.SnapshotMeta{Last: raft.LogID{Term: 1, Index: index}, Membership: raft.NewMembership(raft.Peer{ID: "n1", Incarnation: 1})})
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
	if err := sweepSnapshots(t.Context(), b, 2, nil, 10*time.Minute); err != nil {
		t.Fatal(err)
	}
	if refs, _, err := objectstore.List(t.Context(), d); err != nil || len(refs) != 3 || refs[0] != newer {
		t.Errorf("%v are left, not the newest two and the new leader's of %v (%v)", refs, newer.Last, err)
	}
}
