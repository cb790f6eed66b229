package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nats-io/nats.go"

	"quorate/node/raft"
	"quorate/storage/objectstore"
)

// Without JetStream a snapshot's manifest and parts stay in a directory of the node that built it, and travel by request-reply on
// `<prefix>.<cluster>.node.<id>.part`, a piece a request. Their names are digests, so any node that has one will do.

// heldDir is the part of the node's directory for the snapshots that it keeps for others.
const heldDir = "held-snapshots"

const (
	// A piece must fit into a NATS message with its headers, and a node answers one at a time: small ones share the connection well.
	pieceBytes   = 128 << 10
	pieceRoom    = 4 << 10
	pieceTimeout = 5 * time.Second

	headerCluster  = "Quorate-Cluster"
	headerOffset   = "Quorate-Offset"
	headerSize     = "Quorate-Size"
	headerNotFound = "Quorate-Not-Found"
)

func partSubject(prefix, cluster string, id raft.NodeID) string {
	return fmt.Sprintf("%s.%s.node.%s.part", prefix, cluster, id)
}

// serveParts hands out pieces of what is in the directories. The subscription's goroutine does it, one at a time: that bounds memory,
// and what a fetcher can take of the disk. It ends with the connection.
func (n *Node) serveParts(ctx context.Context, conn *nats.Conn, cluster raft.ClusterID, dirs ...*objectstore.Directory) error {
	subject := partSubject(n.cfg.Prefix, n.cfg.Cluster, n.cfg.ID)
	_, err := conn.Subscribe(subject, func(m *nats.Msg) {
		if m.Reply == "" {
			return // nobody waits
		}
		answer := nats.NewMsg(m.Reply)
		offset, err := strconv.ParseInt(m.Header.Get(headerOffset), 10, 64)
		if err != nil || offset < 0 || m.Header.Get(headerCluster) != cluster.String() {
			return // not a request of this cluster's: whoever asks hears nothing and asks another
		}
		piece := make([]byte, min(pieceBytes, max(conn.MaxPayload()-pieceRoom, 1)))
		err = objectstore.ErrNotFound
		for _, dir := range dirs {
			var got int
			var size int64
			if got, size, err = dir.ReadAt(ctx, string(m.Data), piece, offset); err == nil {
				answer.Data = piece[:got]
				answer.Header.Set(headerSize, strconv.FormatInt(size, 10))
				break
			}
		}
		if err != nil {
			answer.Header.Set(headerNotFound, "true")
			if !errors.Is(err, objectstore.ErrNotFound) {
				n.logger.Warn("cannot read a part of a snapshot", "part", string(m.Data), "error", err)
			}
		}
		if err := conn.PublishMsg(answer); err != nil && ctx.Err() == nil {
			n.logger.Warn("cannot answer a request for a part of a snapshot", "error", err)
		}
	})
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	return nil
}

// heldParts reads what nodes keep. It is the object store of the cluster, and where that has not got something, or there is no
// JetStream, the nodes' directories.
type heldParts struct {
	objectstore.Blobs
	conn            *nats.Conn
	prefix, cluster string
	id              raft.ClusterID
	// nodes are asked in this order. The first one offered the snapshot: that it has not got something is the last word, unless
	// another has it.
	nodes []raft.NodeID
}

// Get implements objectstore.Blobs.
func (h *heldParts) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := h.Blobs.Get(ctx, name)
	if err == nil || !errors.Is(err, objectstore.ErrNotFound) && !objectstore.WithoutJetStream(err) {
		return r, err
	}
	pieces := &heldReader{ctx: ctx, from: h, name: name, nodes: slices.Clone(h.nodes)}
	if err := pieces.next(); err != nil {
		return nil, fmt.Errorf("get %s from the nodes: %w", name, err)
	}
	return pieces, nil
}

// heldReader reads a part piece by piece. When a node does not answer, the next one goes on where it stopped.
type heldReader struct {
	// ctx is Get's: reading is a part of it.
	ctx  context.Context
	from *heldParts
	name string
	// nodes that may still have it.
	nodes  []raft.NodeID
	rest   []byte
	offset int64
	size   int64
	begun  bool
}

// Read implements io.Reader.
func (r *heldReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.offset >= r.size {
			return 0, io.EOF
		}
		if err := r.next(); err != nil {
			return 0, fmt.Errorf("get %s from the nodes: %w", r.name, err)
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (r *heldReader) Close() error { return nil }

// next asks for the next piece.
func (r *heldReader) next() error {
	var failed error
	missing := false
	for len(r.nodes) > 0 {
		id := r.nodes[0]
		piece, size, err := r.ask(id)
		switch {
		case err == nil && r.begun && size != r.size:
			err = fmt.Errorf("%s has %d bytes of it, another node %d", id, size, r.size)
		case err == nil && len(piece) == 0 && r.offset < size:
			err = fmt.Errorf("%s sent an empty piece", id)
		case err == nil:
			r.rest, r.size, r.begun = piece, size, true
			r.offset += int64(len(piece))
			return nil
		}
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		if errors.Is(err, objectstore.ErrNotFound) {
			missing = missing || id == r.from.nodes[0]
		}
		failed = errors.Join(failed, err)
		r.nodes = r.nodes[1:]
	}
	if missing {
		return objectstore.ErrNotFound
	}
	return &objectstore.UnavailableError{Err: errors.Join(errors.New("no node sends it"), failed)}
}

func (r *heldReader) ask(id raft.NodeID) (piece []byte, size int64, err error) {
	h := r.from
	m := nats.NewMsg(partSubject(h.prefix, h.cluster, id))
	m.Data = []byte(r.name)
	m.Header.Set(headerCluster, h.id.String())
	m.Header.Set(headerOffset, strconv.FormatInt(r.offset, 10))
	ctx, cancel := context.WithTimeout(r.ctx, pieceTimeout)
	defer cancel()
	answer, err := h.conn.RequestMsgWithContext(ctx, m)
	if err != nil {
		return nil, 0, fmt.Errorf("ask %s: %w", id, err)
	}
	if answer.Header.Get(headerNotFound) != "" {
		return nil, 0, fmt.Errorf("ask %s: %w", id, objectstore.ErrNotFound)
	}
	if size, err = strconv.ParseInt(answer.Header.Get(headerSize), 10, 64); err != nil {
		return nil, 0, fmt.Errorf("the answer of %s is not understood: %w", id, err)
	}
	return answer.Data, size, nil
}

// HeldSnapshots are the snapshots that a node keeps for others.
type HeldSnapshots struct {
	Snapshots []objectstore.Stored
	// Damaged are those that cannot be used, in words.
	Damaged []string `json:",omitempty"`
}

// heldSnapshots lists what this node keeps.
func (n *Node) heldSnapshots(ctx context.Context) (held HeldSnapshots, err error) {
	if n.cfg.Dir == "" {
		return held, nil
	}
	var damaged []*objectstore.DamagedError
	held.Snapshots, damaged, err = objectstore.ListStored(ctx, objectstore.NewDirectory(vfs.Default, filepath.Join(n.cfg.Dir, heldDir)))
	for _, d := range damaged {
		held.Damaged = append(held.Damaged, d.Error())
	}
	return held, err
}

// HeldSnapshots asks a node for the snapshots that it keeps for others, the newest first: those that it built while there was no JetStream.
func (a *Admin) HeldSnapshots(ctx context.Context, id raft.NodeID) (HeldSnapshots, error) {
	var held HeldSnapshots
	return held, a.call(ctx, id, "snapshots", nil, &held)
}

// HeldParts is the cluster's object store, and for what that has not, or cannot give, because there is no JetStream, the snapshots that nodes
// keep. The nodes are asked in their order; that the first one has not got something is the last word.
func (a *Admin) HeldParts(store objectstore.Blobs, cluster raft.ClusterID, nodes ...raft.NodeID) objectstore.Blobs {
	return &heldParts{Blobs: store, conn: a.conn, prefix: a.prefix, cluster: a.cluster, id: cluster, nodes: nodes}
}

// partsFrom is where a fetcher gets a snapshot from.
func (c *raftCore) partsFrom() objectstore.Blobs {
	conn := c.snapshots.conn
	if conn == nil {
		return c.snapshots.shared
	}
	h := &heldParts{Blobs: c.snapshots.shared, conn: conn, prefix: c.cfg.Prefix, cluster: c.cfg.Cluster, id: c.genesis.ClusterID()}
	if leader := c.engine.Leader(); leader.ID != "" {
		h.nodes = append(h.nodes, leader.ID)
	}
	for _, m := range c.engine.Membership().Members {
		if m.Peer.ID != c.cfg.ID && !slices.Contains(h.nodes, m.Peer.ID) {
			h.nodes = append(h.nodes, m.Peer.ID)
		}
	}
	return h
}
