package kv

import (
	"context"
	"fmt"
	"time"

	"quorate/node/kv/kvpb"
)

// ReadOption says where and how a read is served.
type ReadOption func(*readOption)

type readOption struct {
	node        string
	consistency uint32
	source      *Source
}

// Source says who served a read.
type Source struct {
	// Node that answered.
	Node string
	// Leased: the read was served under the leader's lease, without a round to a quorum.
	Leased bool
	// Staleness is how long ago that node last heard of a leader, or as leader of its quorum: what a local read sees may be older than the
	// newest write by that much and what the node has yet to apply. Negative if it never did.
	Staleness time.Duration
}

// Local makes a read see what the node that answers has applied, which may be old, without asking the leader. source, if not nil, is
// told who answered and how stale that may be.
func Local(source *Source) ReadOption {
	return func(o *readOption) { o.consistency, o.source = consistencyLocal, source }
}

// Lease makes a linearizable read spare the round to a quorum, where the cluster's setting has leases (node.Setting) and the node that answers
// leads: see node.ReadLease for what that believes of clocks. Anywhere else the read takes the round, and is linearizable all the same. source,
// if not nil, is told who answered and whether it was under a lease.
func Lease(source *Source) ReadOption {
	return func(o *readOption) { o.consistency, o.source = consistencyLease, source }
}

// FromNode has a node serve the read; else the leader serves linearizable reads and any node local ones. A node that does not lead asks the
// leader for the read index of a linearizable read, and serves it itself.
func FromNode(id string) ReadOption { return func(o *readOption) { o.node = id } }

func readOptions(opts []ReadOption) *readOption {
	o := &readOption{}
	for _, opt := range opts {
		opt(o)
	}
	return o
}

func (o *readOption) local() bool { return o.consistency == consistencyLocal }

// elsewhere reports whether the read does not simply go to the leader, with the others.
func (o *readOption) elsewhere() bool { return o.local() || o.node != "" }

// anyNode begins the subjects that any node serves.
const anyNode = "kv.any."

// subject returns the operation's place under `<prefix>.<cluster>.`.
func (o *readOption) subject(op string) string {
	switch {
	case o.node != "":
		return "node." + o.node + ".kv." + op
	case o.local():
		return anyNode + op
	}
	return "kv." + op
}

func (o *readOption) report(staleness int64, node string, leased bool) {
	if o.source != nil {
		*o.source = Source{Node: node, Staleness: time.Duration(staleness), Leased: leased}
	}
}

func (c *Client) getElsewhere(ctx context.Context, key string, o *readOption) (Entry, error) {
	request := kvpb.ReadRequest{Version: commandVersion, Keys: [][]byte{[]byte(key)}, Consistency: o.consistency, Unsampled: c.telemetry.BeginsTraces()}
	var response kvpb.ReadResponse
	if err := c.askTraced(ctx, "kv.get", o.subject("read"), request.MarshalVT, response.UnmarshalVT); err != nil {
		return Entry{}, err
	}
	o.report(response.StalenessNs, response.Node, response.Leased)
	if len(response.Versions) != 1 {
		return Entry{}, fmt.Errorf("%d answers to one read: %w", len(response.Versions), ErrUnavailable)
	}
	if response.Versions[0].Revision == 0 {
		return Entry{}, ErrNotFound
	}
	return entryOf(response.Versions[0]), nil
}
