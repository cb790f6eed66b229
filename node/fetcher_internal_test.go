package node

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
	"quorate/storage/objectstore"
)

// countedParts counts the parts that are read.
type countedParts struct {
	objectstore.Blobs
	parts atomic.Int64
}

func (c *countedParts) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if strings.HasPrefix(name, "part-") {
		c.parts.Add(1)
	}
	return c.Blobs.Get(ctx, name)
}

// A node that ended while it prepared the state, or had no room for that, has all of the snapshot when it is offered again.
func TestAFetchThatWasCompleteIsNotMadeAgain(t *testing.T) {
	files, cluster := vfs.NewMem(), raft.ClusterID{1}
	from := &countedParts{Blobs: objectstore.NewDirectory(files, "/shared")}
	to := objectstore.NewDirectory(files, "/local")
	storeSnapshot(t, to, cluster, 5, strings.Repeat("of an earlier fetch", 1000))
	ref := storeSnapshot(t, from, cluster, 10, strings.Repeat("state", 1000))
	f := &fetcher{from: from, to: to, ref: ref, cluster: cluster, progress: &fetchProgress{}}
	for range 2 {
		if err := f.fetch(t.Context(), &fetched{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := from.parts.Load(); n != 1 {
		t.Errorf("the only part was fetched %d times", n)
	}
	if refs, _, err := objectstore.List(t.Context(), to); err != nil || len(refs) != 1 || refs[0] != ref {
		t.Errorf("%v are there (%v)", refs, err)
	}
}
