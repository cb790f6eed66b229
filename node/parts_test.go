package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nats-io/nats.go"

	"quorate/node/raft"
	"quorate/storage/objectstore"
	"quorate/transport/embednats"
)

// A part that one node stops sending in the middle comes on from another, where the first one stopped. What nobody has is not found,
// when the node says so that offered it.
func TestAPartGoesOnFromAnotherNode(t *testing.T) {
	t.Parallel()
	server, err := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	part := make([]byte, 5*pieceBytes+123)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(part)
	cluster := raft.ClusterID{1}
	stop := map[raft.NodeID]func(){}
	for _, id := range []raft.NodeID{"n1", "n2"} {
		dir := objectstore.NewDirectory(vfs.NewMem(), string(id))
		if err := dir.Put(ctx, "part-1", int64(len(part)), bytes.NewReader(part)); err != nil {
			t.Fatal(err)
		}
		conn, err := server.Connect()
		if err != nil {
			t.Fatal(err)
		}
		stop[id] = conn.Close
		defer conn.Close()
		n := &Node{cfg: Config{Prefix: "quorate", Cluster: "test", ID: id}, logger: slog.New(slog.DiscardHandler)}
		if err := n.serveParts(ctx, conn, cluster, dir); err != nil {
			t.Fatal(err)
		}
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	empty := objectstore.NewDirectory(vfs.NewMem(), "empty")
	from := &heldParts{Blobs: empty, conn: conn, prefix: "quorate", cluster: "test", id: cluster, nodes: []raft.NodeID{"n1", "n2"}}
	r, err := from.Get(ctx, "part-1")
	if err != nil {
		t.Fatal(err)
	}
	begin := make([]byte, 2*pieceBytes)
	if _, err := io.ReadFull(r, begin); err != nil {
		t.Fatal(err)
	}
	stop["n1"]()
	rest, err := io.ReadAll(iotest.OneByteReader(r))
	if err != nil || !bytes.Equal(append(begin, rest...), part) {
		t.Fatalf("%d bytes of %d: %v", len(begin)+len(rest), len(part), err)
	}
	// The first node has the last word on what is missing; while it is away, nobody knows.
	if _, err := from.Get(ctx, "part-2"); !errors.Is(err, objectstore.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	from.nodes = []raft.NodeID{"n2"}
	if _, err := from.Get(ctx, "part-2"); !errors.Is(err, objectstore.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// Nobody waits for the answer to a message that was published: it is not worth a line of the log, however many there are.
func TestARequestForAPartThatNobodyWaitsForIsIgnored(t *testing.T) {
	t.Parallel()
	server, err := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	serving, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer serving.Close()
	cluster := raft.ClusterID{1}
	var said bytes.Buffer // read when the last request is answered: the subscription's goroutine writes
	n := &Node{cfg: Config{Prefix: "quorate", Cluster: "test", ID: "n1"}, logger: slog.New(slog.NewTextHandler(&said, nil))}
	if err := n.serveParts(t.Context(), serving, cluster, objectstore.NewDirectory(vfs.NewMem(), "n1")); err != nil {
		t.Fatal(err)
	}
	if err := serving.Flush(); err != nil {
		t.Fatal(err)
	}
	conn, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m := nats.NewMsg(partSubject("quorate", "test", "n1"))
	m.Data = []byte("part-1")
	m.Header.Set(headerCluster, cluster.String())
	m.Header.Set(headerOffset, "0")
	if err := conn.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
	if answer, err := conn.RequestMsg(m, pieceTimeout); err != nil || answer.Header.Get(headerNotFound) == "" {
		t.Fatalf("%+v, %v", answer, err)
	}
	if said.Len() > 0 {
		t.Errorf("it says %s", said.String())
	}
}
