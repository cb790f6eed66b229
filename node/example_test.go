package node_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"os"

	"quorate/node"
	"quorate/node/raft"
	"quorate/transport/embednats"
)

// counter adds up: every command is a byte, and its result is the sum so far.
type counter struct{ sum uint64 }

func (c *counter) Apply(batch node.Batch) ([][]byte, error) {
	var results [][]byte
	for _, command := range batch.Commands {
		c.sum += uint64(command.Data[0])
		results = append(results, binary.BigEndian.AppendUint64(nil, c.sum))
	}
	return results, nil
}
func (c *counter) Snapshot() (node.Snapshot, error) { return view(c.sum), nil }
func (c *counter) Restore(_ context.Context, _ node.SnapshotMeta, r io.Reader) error {
	return binary.Read(r, binary.BigEndian, &c.sum)
}
func (c *counter) Close() error { return nil }

type view uint64 // the counter's snapshot
func (v view) WriteTo(_ context.Context, w io.Writer) error {
	return binary.Write(w, binary.BigEndian, v)
}
func (v view) Close() error { return nil }

func Example() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "quorate-example")
	defer os.RemoveAll(dir)
	server, _ := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: -1, Dir: dir + "/nats"})
	defer server.Close()
	nodes := map[raft.NodeID]*node.Node{}
	for _, id := range []raft.NodeID{"n1", "n2", "n3"} {
		nodes[id], _ = node.Start(ctx, node.Config{
			Cluster: "example", ID: id, Members: []raft.NodeID{"n1", "n2", "n3"},
			Dir: dir + "/" + string(id), URL: server.ClientURL(), Logger: slog.New(slog.DiscardHandler),
		}, &counter{})
		defer nodes[id].Close(ctx)
	}
	leader, _ := nodes["n1"].WaitLeader(ctx)
	for _, n := range []byte{1, 41} {
		result, err := nodes[leader].Propose(ctx, []byte{n})
		fmt.Println(binary.BigEndian.Uint64(result.Value), err)
	}
	// Output: 1 <nil>
	// 42 <nil>
}
