package kv_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/raft"
	"quorate/transport/embednats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is nodes with their stores and services over one embedded NATS server.
type cluster struct {
	t       *testing.T
	dir     string
	server  *embednats.Server
	members []raft.NodeID
	nodes   map[raft.NodeID]*member
	// tune, if not nil, changes the configuration of nodes that are started.
	tune func(*node.Config)
}

type member struct {
	*node.Node
	store   *kv.Store
	service *kv.Service
}

var quiet = slog.New(slog.DiscardHandler)

func startCluster(t *testing.T, members ...raft.NodeID) *cluster {
	t.Helper()
	return startClusterAt(t, embednats.Options{Port: -1}, members...)
}

// startClusterAt is startCluster with a NATS server of its own kind.
func startClusterAt(t *testing.T, options embednats.Options, members ...raft.NodeID) *cluster {
	t.Helper()
	server, err := embednats.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	c := &cluster{t: t, dir: t.TempDir(), server: server, members: members, nodes: map[raft.NodeID]*member{}}
	for _, id := range members {
		c.start(id)
	}
	return c
}

// join starts nodes that are to be added.
func (c *cluster) join(ids ...raft.NodeID) {
	c.t.Helper()
	for _, id := range ids {
		c.startWith(id, func(config *node.Config) { config.Members, config.Join = nil, true })
	}
}

func (c *cluster) start(id raft.NodeID) { c.startWith(id, func(*node.Config) {}) }

func (c *cluster) startWith(id raft.NodeID, tune func(*node.Config)) {
	c.t.Helper()
	store, err := kv.OpenStore(filepath.Join(c.dir, string(id), "state"), kv.StoreOptions{Logger: quiet})
	if err != nil {
		c.t.Fatal(err)
	}
	config := node.Config{
		Cluster: "test", ID: id, Members: c.members, Dir: filepath.Join(c.dir, string(id), "log"), URL: c.server.ClientURL(), Logger: quiet,
	}
	if len(c.members) == 1 {
		config.ElectionTimeout = 20 * time.Second // it elects itself at once, and a busy machine does not cost it its leadership
	}
	tune(&config)
	if c.tune != nil {
		c.tune(&config)
	}
	n, err := node.Start(c.t.Context(), config, store)
	if err != nil {
		c.t.Fatal(err)
	}
	service, err := kv.Serve(n, store, kv.ServiceOptions{Logger: quiet})
	if err != nil {
		c.t.Fatal(err)
	}
	m := &member{Node: n, store: store, service: service}
	c.nodes[id] = m
	c.t.Cleanup(m.stop)
}

func (m *member) stop() {
	_ = m.service.Close()
	_ = m.Close(context.Background())
}

func (c *cluster) connect() *nats.Conn {
	c.t.Helper()
	conn, err := c.server.Connect()
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(conn.Close)
	return conn
}

func (c *cluster) client(opts ...kv.ClientOption) *kv.Client {
	c.t.Helper()
	client, err := kv.NewClient(c.connect(), "test", opts...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = client.Close() })
	return client
}

// put writes keys k000 and on, from one number up to, not including, another: value with the number behind it.
func (c *cluster) put(ctx context.Context, client *kv.Client, from, to int, value string) {
	c.t.Helper()
	for i := from; i < to; i++ {
		if _, err := client.Put(ctx, fmt.Sprintf("k%03d", i), fmt.Append(nil, value, i)); err != nil {
			c.t.Fatal(err)
		}
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// taker takes messages, tells, and does not answer.
func taker(taken chan<- struct{}) nats.MsgHandler {
	return func(*nats.Msg) {
		select {
		case taken <- struct{}{}:
		default:
		}
	}
}

// elects has a node stand for election until somebody leads: whoever waits for nobody's timeout can be patient otherwise.
func (m *member) elects(t *testing.T) {
	t.Helper()
	ctx := within(t, 30*time.Second)
	for {
		asked, cancel := context.WithTimeout(ctx, time.Second)
		if _, err := m.Elect(asked); err != nil && !errors.Is(err, node.ErrNotInitialized) {
			t.Fatal(err)
		}
		_, err := m.Wait(asked, func(s node.Status) bool { return s.Leader != "" })
		cancel()
		switch {
		case err == nil:
			return
		case ctx.Err() != nil:
			t.Fatalf("nobody leads: %+v", m.Status())
		}
	}
}
