// Package powercut cuts the power of whole clusters. Killing processes never exposes a missing fsync, because the operating system
// keeps what they wrote; a file system that forgets what was not synced does.
package powercut

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/raft"
	"quorate/storage/pebblelog"
	"quorate/storage/storagetest"
	"quorate/transport/embednats"
)

var members = []raft.NodeID{"n1", "n2", "n3"}

// cluster is three nodes of the key-value store whose disks are one crashable file system, so that the power of all of them goes
// in one instant.
type cluster struct {
	t      *testing.T
	disk   *storagetest.Crashable
	nodes  []*node.Node
	server *embednats.Server
}

func start(t *testing.T, disk *storagetest.Crashable, server *embednats.Server) *cluster {
	t.Helper()
	c := &cluster{t: t, disk: disk, server: server}
	for _, id := range members {
		log, err := pebblelog.OpenLog(filepath.Join(string(id), "log"), pebblelog.Options{FS: disk, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		store, err := kv.OpenStore(filepath.Join(string(id), "state"), kv.StoreOptions{FS: disk, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		n, err := node.Start(t.Context(), node.Config{
			Cluster: "powercut", ID: id, Members: members, Log: log, URL: server.ClientURL(), Logger: slog.New(slog.DiscardHandler),
		}, store)
		if err != nil {
			t.Fatal(err)
		}
		service, err := kv.Serve(n, store, kv.ServiceOptions{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = service.Close() })
		c.nodes = append(c.nodes, n)
	}
	return c
}

func (c *cluster) close() {
	for _, n := range c.nodes {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		if err := n.Close(ctx); err != nil {
			c.t.Errorf("close: %v", err)
		}
		cancel()
	}
}

const (
	writers = 8
	// keys of each writer.
	keys = 50
	// loadBeforeACut is how many writes are acknowledged before each cut: so many that the keys are written again and again.
	loadBeforeACut = 2 * writers * keys
)

// acknowledged is what clients were told: the newest value of each key, and what was sent whether answered or not.
type acknowledged struct {
	mu     sync.Mutex
	values map[string]string
	writes int                        // that were acknowledged
	asked  map[string]map[string]bool // every value ever sent, by key
	// next is the number that each writer sends next. It belongs to the writer, and goes on after a cut: if it began again, an old value would
	// be greater than the lost one and pass for a later one.
	next [writers]int
}

// load writes until the context ends, each writer its own keys, each key ever greater numbers.
func (a *acknowledged) load(ctx context.Context, client *kv.Client, writer int) {
	for ; ctx.Err() == nil; a.next[writer]++ {
		n := a.next[writer]
		key, value := fmt.Sprintf("w%d-k%d", writer, n%keys), fmt.Sprintf("%08d", n)
		a.mu.Lock()
		if a.asked[key] == nil {
			a.asked[key] = map[string]bool{}
		}
		a.asked[key][value] = true
		a.mu.Unlock()
		if _, err := client.Put(ctx, key, []byte(value)); err == nil {
			a.mu.Lock()
			a.values[key] = value
			a.writes++
			a.mu.Unlock()
		}
	}
}

func (a *acknowledged) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.writes
}

func (a *acknowledged) copy() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	values := map[string]string{}
	for k, v := range a.values {
		values[k] = v
	}
	return values
}

// TestPowerGoneEverywhereLosesNoAcknowledgedWrite cuts the power of three whole nodes at once under load, several times in a row on
// what the cut before left, with nothing or a random part of what was not synced surviving.
func TestPowerGoneEverywhereLosesNoAcknowledgedWrite(t *testing.T) {
	const cuts = 3
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	server, err := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	disk := storagetest.NewCrashable()
	if err := disk.MkdirAll("", 0o755); err != nil {
		t.Fatal(err)
	}
	state := &acknowledged{values: map[string]string{}, asked: map[string]map[string]bool{}}
	for cut := range cuts {
		c := start(t, disk, server)
		client := connect(t, server)
		verify(t, client, state, state.copy(), cut)
		ctx, stop := context.WithCancel(t.Context())
		before := state.count()
		var group sync.WaitGroup
		for w := range writers {
			group.Go(func() { state.load(ctx, client, w) })
		}
		waitFor(t, "writes to be acknowledged", func() bool { return state.count() >= before+loadBeforeACut })
		acked := state.copy() // before the cut: what was acknowledged after it proves nothing
		cfg := vfs.CrashCloneCfg{}
		if cut%2 == 1 {
			cfg = vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(100), RNG: random}
		}
		disk = c.disk.CrashClone(cfg)
		stop()
		group.Wait()
		c.close()
		// Later acknowledgements happened in a world that the cut undid: a value between the two is as good.
		state.mu.Lock()
		state.values = acked
		state.mu.Unlock()
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
	c := start(t, disk, server)
	client := connect(t, server)
	verify(t, client, state, state.copy(), cuts)
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	c.close()
}

func connect(t *testing.T, server *embednats.Server) *kv.Client {
	t.Helper()
	conn, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	client, err := kv.NewClient(conn, "powercut")
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// verify reads every acknowledged key: its value must be the acknowledged one, or one sent after it.
func verify(t *testing.T, client *kv.Client, state *acknowledged, acked map[string]string, cut int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for key, want := range acked {
		entry, err := client.Get(ctx, key)
		if errors.Is(err, kv.ErrNotFound) {
			t.Fatalf("after cut %d: acknowledged key %s is gone (value %s)", cut, key, want)
		}
		if err != nil {
			t.Fatal(err)
		}
		got := string(entry.Value)
		if got < want || !state.asked[key][got] {
			t.Fatalf("after cut %d: key %s is %s, but %s was acknowledged", cut, key, got, want)
		}
	}
	t.Logf("after cut %d: all %d acknowledged keys are there", cut, len(acked))
}

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}
