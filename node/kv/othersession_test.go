package kv_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A cluster is made anew under its old name, and a client that knew the old one goes on. The number of its session is another client's now, whose
// answers it must not take for its own: its write would be lost.
func TestASessionOfAnEarlierClusterIsNotTakenForAnother(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1")
	ctx := within(t, 60*time.Second)
	old, other := c.client(), c.client()
	if _, err := old.Put(ctx, "k1", nil); err != nil {
		t.Fatal(err)
	}
	c.nodes["n1"].stop()
	if err := os.RemoveAll(filepath.Join(c.dir, "n1")); err != nil {
		t.Fatal(err)
	}
	c.start("n1")
	for _, key := range []string{"k1", "k2"} {
		if _, err := other.Put(ctx, key, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"mine", "mine too"} {
		revision, err := old.Put(ctx, key, []byte("v"))
		if err != nil {
			t.Fatal(err)
		}
		if entry, err := old.Get(ctx, key); err != nil || entry.Revision != revision {
			t.Errorf("written at revision %d: %+v, %v", revision, entry, err)
		}
	}
}
