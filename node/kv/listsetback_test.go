package kv_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node/kv"
	"quorate/node/raft"
)

// TestALocalListAtANodeThatACrashSetBackWaitsForIt: what was not flushed is gone until a leader tells it again, and keys in it must not be left out.
func TestALocalListAtANodeThatACrashSetBackWaitsForIt(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	c.members = []raft.NodeID{"n1", "n2", "n3"}
	for _, id := range c.members {
		c.start(id)
	}
	client, ctx := c.client(), within(t, 60*time.Second)
	put := func(key string, value []byte) {
		t.Helper()
		if _, err := client.Put(ctx, key, value); err != nil {
			t.Fatal(err)
		}
		again(t, "the write to be applied", func() bool { _, err := c.nodes["n2"].store.Get(key, 0); return err == nil })
	}
	put("first", nil)
	if err := c.nodes["n2"].store.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	state, crashed := filepath.Join(c.dir, "n2", "state"), filepath.Join(t.TempDir(), "state")
	if err := os.CopyFS(crashed, os.DirFS(state)); err != nil { // what a crash leaves, as long as nothing more is flushed
		t.Fatal(err)
	}
	const keys = 3
	for i := range keys {
		put(fmt.Sprint("k", i), make([]byte, 300<<10)) // a page each
	}
	var restarted atomic.Bool
	var asked atomic.Int64
	listing, cancel := context.WithCancel(ctx)
	defer cancel()
	conn := c.connect()
	if _, err := conn.Subscribe("quorate.test.node.n2.kv.range", func(*nats.Msg) {
		if restarted.Load() && asked.Add(1) == 3 { // twice it was told to try again
			cancel()
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	listed := 0
	for _, err := range client.List(listing, "k", false, kv.Local(nil), kv.FromNode("n2")) {
		if err != nil {
			if !errors.Is(err, kv.ErrUnavailable) {
				t.Error(err)
			}
			break
		}
		if listed++; listed > 1 {
			continue
		}
		for _, id := range c.members {
			c.nodes[id].stop()
		}
		if err := errors.Join(os.RemoveAll(state), os.CopyFS(state, os.DirFS(crashed))); err != nil {
			t.Fatal(err)
		}
		c.start("n2") // alone it cannot know what is committed
		restarted.Store(true)
	}
	if listing.Err() == nil && listed != keys {
		t.Errorf("the list ended without an error after %d of %d keys", listed, keys)
	}
}
