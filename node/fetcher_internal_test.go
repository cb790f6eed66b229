package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
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

// TestAFetchRemovesWhatItHasNoUseFor: one fetch after the other that is broken off, each of another snapshot, would fill the disk.
func TestAFetchRemovesWhatItHasNoUseFor(t *testing.T) {
	files, cluster := vfs.NewMem(), raft.ClusterID{1}
	from := &countedParts{Blobs: objectstore.NewDirectory(files, "/shared")}
	to := objectstore.NewDirectory(files, "/local")
	ref := storeSnapshot(t, from, cluster, 10, strings.Repeat("state", 1000))
	m, err := objectstore.Open(t.Context(), from, ref)
	if err != nil {
		t.Fatal(err)
	}
	wanted := m.Unique()[0].Name()
	move := func(a, b objectstore.Blobs, name string) {
		t.Helper()
		r, err := a.Get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close(), b.Put(t.Context(), name, int64(len(content)), bytes.NewReader(content)), a.Delete(t.Context(), name)); err != nil {
			t.Fatal(err)
		}
	}
	// Two fetches of others were broken off: one by an error, one with the process.
	rest := fmt.Sprintf("part-%064x", 7)
	if err := to.Put(t.Context(), rest, 1, strings.NewReader("a")); err != nil {
		t.Fatal(err)
	}
	half, err := files.Create("/local/"+rest+".ABC.tmp", vfs.WriteCategoryUnspecified)
	if err == nil {
		err = half.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	fetch := func() error {
		f := &fetcher{from: from, to: to, ref: ref, cluster: cluster, progress: &fetchProgress{}}
		return f.fetch(t.Context(), &fetched{})
	}
	move(from, to, wanted) // it goes on with that
	if err := to.Delete(t.Context(), ref.Name); err != nil {
		t.Fatal(err)
	}
	if err := fetch(); err != nil {
		t.Error(err)
	}
	names, err := files.List("/local")
	slices.Sort(names)
	if want := []string{ref.Name, wanted}; err != nil || !slices.Equal(names, want) {
		t.Errorf("%v are there, not %v (%v)", names, want, err)
	}
	if n := from.parts.Load(); n != 1 { // by move
		t.Errorf("parts were read %d times", n)
	}
}
