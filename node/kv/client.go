package kv

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node/kv/kvpb"
	"quorate/telemetry"
)

// MaxKeyBytes is the length of the longest key.
const MaxKeyBytes = 1024

// Entry is one key with its value.
type Entry struct {
	Key   string
	Value []byte
	// Revision is the log index of the write that made this version: it grows with every write to the store.
	Revision uint64
	// Time is the log time of that write.
	Time time.Time
}

// Client is a client of a cluster's key-value store. Its writes take effect exactly once: it has a session, so that it can send a write
// again when a leader was lost with it. It is safe from several goroutines; operations that are asked for while others
// are under way share messages with each other, and a lone one waits for nothing.
type Client struct {
	nc   *nats.Conn
	stem string // <prefix>.<cluster>.

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	group  sync.WaitGroup
	writes lane
	reads  lane
	leased lane // reads under the leader's lease
	mail   *mailbox

	session clientSession

	telemetry *telemetry.Telemetry

	// leader is the newest one that answered, with the cluster's limit.
	leader atomic.Pointer[kvpb.Leader]
}

// ClientOption changes what NewClient makes.
type ClientOption func(*clientOptions)

type clientOptions struct {
	prefix     string
	noSessions bool
	ids        bool
	telemetry  *telemetry.Telemetry
}

// WithPrefix sets the first token of the cluster's subjects, "quorate" by default.
func WithPrefix(prefix string) ClientOption { return func(o *clientOptions) { o.prefix = prefix } }

// WithoutSession makes the client do without a session: a write that a leader got and did not do, since it was busy, or did not answer, is not
// sent again, and its outcome is unknown.
func WithoutSession() ClientOption { return func(o *clientOptions) { o.noSessions = true } }

// WithMessageIDs gives each message of writes a random id in place of a number in a session, under which it takes effect once within two
// minutes, or until 65,536 others with an id have come if that is sooner. It is for a client that makes a few writes and ends: there is nothing to register.
// Where more than a thousand such messages come in a second, one that is sent again after a minute may be forgotten by then: a session is not.
func WithMessageIDs() ClientOption { return func(o *clientOptions) { o.ids = true } }

// NewClient returns a client of the named cluster over nc, which stays the caller's.
func NewClient(nc *nats.Conn, cluster string, opts ...ClientOption) (*Client, error) {
	o := clientOptions{prefix: "quorate"}
	for _, opt := range opts {
		opt(&o)
	}
	if cluster == "" {
		return nil, errors.New("new client: no cluster name")
	}
	mail, err := openMailbox(nc)
	if err != nil {
		return nil, fmt.Errorf("new client: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Client{nc: nc, stem: o.prefix + "." + cluster + ".", ctx: ctx, cancel: cancel, mail: mail, telemetry: o.telemetry}
	c.session.registering = make(chan struct{}, 1)
	c.session.off, c.session.ids = o.noSessions, o.ids
	c.writes = newLane(c.sendWrites)
	c.reads = newLane(func(ctx context.Context, o []*operation) { c.sendReads(ctx, o, consistencyLinearizable) })
	c.leased = newLane(func(ctx context.Context, o []*operation) { c.sendReads(ctx, o, consistencyLease) })
	c.group.Go(func() { c.dispatch(&c.writes) })
	c.group.Go(func() { c.dispatch(&c.reads) })
	c.group.Go(func() { c.dispatch(&c.leased) })
	return c, nil
}

// Close ends the client; what waits is answered with an error.
func (c *Client) Close() error {
	c.cancel()
	c.group.Wait()
	return c.mail.close()
}

// WriteOption is a condition on a write.
type WriteOption func(*kvpb.Op)

// IfRevision makes a write conditional: the key must be at that revision; zero means that there must be no such key.
func IfRevision(revision uint64) WriteOption {
	return func(op *kvpb.Op) { op.Conditional, op.Expected = true, revision }
}

// Put stores value under key and returns the revision. It blocks until the write is durable on a majority, and tries again by itself, or
// until the context ends or the connection is closed; value must not be changed before that, and not at all if the context ended the wait.
//
// Errors: ErrCondition, ErrInvalidKey, *TooLargeError, ErrUnavailable: nothing was changed; ErrUnknownOutcome: it was sent, and the
// context ended, the connection was closed, or it could not be sent again, before a leader answered that it is done.
func (c *Client) Put(ctx context.Context, key string, value []byte, opts ...WriteOption) (revision uint64, err error) {
	return c.write(ctx, "put", &kvpb.Op{Kind: opPut, Key: []byte(key), Value: value}, opts)
}

// Delete removes key and returns the revision of that. Errors as of Put, and ErrNotFound.
func (c *Client) Delete(ctx context.Context, key string, opts ...WriteOption) (revision uint64, err error) {
	return c.write(ctx, "delete", &kvpb.Op{Kind: opDelete, Key: []byte(key)}, opts)
}

func (c *Client) write(ctx context.Context, what string, op *kvpb.Op, opts []WriteOption) (uint64, error) {
	for _, opt := range opts {
		opt(op)
	}
	if err := checkKey(op.Key); err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	if size, limit := len(op.Key)+len(op.Value), c.maxWriteBytes(); size > limit {
		return 0, fmt.Errorf("%s %q: %w", what, op.Key, &TooLargeError{Size: size, Limit: limit})
	}
	o := &operation{ctx: ctx, write: op, done: make(chan struct{})}
	o.span = c.beginSpan(ctx, spanOfOp(op.Kind), "kv.batch")
	err := c.submit(&c.writes, o)
	if err == nil && o.outcome != nil {
		err = outcomeError(o.outcome)
	}
	o.span.End(time.Time{}, err)
	if err != nil {
		return 0, fmt.Errorf("%s %q: %w", what, op.Key, err)
	}
	return o.outcome.Revision, nil
}

func outcomeError(outcome *kvpb.OpOutcome) error {
	switch outcome.Status {
	case outcomeDone:
		return nil
	case outcomeCondition:
		if outcome.Revision == 0 {
			return fmt.Errorf("%w: there is no such key", ErrCondition)
		}
		return fmt.Errorf("%w: it is at revision %d", ErrCondition, outcome.Revision)
	case outcomeNotFound:
		return ErrNotFound
	case outcomeInvalid:
		return ErrInvalidKey
	}
	return fmt.Errorf("the cluster answered with outcome %d, which this client does not know: %w", outcome.Status, ErrUnknownOutcome)
}

// Get returns the newest version of key. It is linearizable, unless an option says otherwise. Errors: ErrNotFound, ErrInvalidKey,
// ErrUnavailable.
func (c *Client) Get(ctx context.Context, key string, opts ...ReadOption) (Entry, error) {
	if err := checkKey(key); err != nil {
		return Entry{}, fmt.Errorf("get: %w", err)
	}
	how := readOptions(opts)
	if how.elsewhere() {
		entry, err := c.getElsewhere(ctx, key, how)
		if err != nil {
			return Entry{}, fmt.Errorf("get %q: %w", key, err)
		}
		return entry, nil
	}
	o := &operation{ctx: ctx, read: key, done: make(chan struct{})}
	o.span = c.beginSpan(ctx, "kv.get", "kv.read")
	lane := &c.reads
	if how.consistency == consistencyLease {
		lane = &c.leased
	}
	err := c.submit(lane, o)
	o.span.End(time.Time{}, err)
	if err != nil {
		return Entry{}, fmt.Errorf("get %q: %w", key, err)
	}
	how.report(o.source.StalenessNs, o.source.Node, o.source.Leased)
	if o.version.Revision == 0 {
		return Entry{}, fmt.Errorf("get %q: %w", key, ErrNotFound)
	}
	return entryOf(o.version), nil
}

func entryOf(v *kvpb.Version) Entry {
	return Entry{Key: string(v.Key), Value: v.Value, Revision: v.Revision, Time: time.Unix(0, v.Time)}
}

// MaxValueBytes asks the cluster for the most bytes that a value and its key may have together.
func (c *Client) MaxValueBytes(ctx context.Context) (int, error) {
	var leader kvpb.Leader
	if err := c.ask(ctx, "kv.leader", (&kvpb.Leader{}).MarshalVT, leader.UnmarshalVT); err != nil {
		return 0, fmt.Errorf("ask for the limit: %w", err)
	}
	c.leader.Store(&leader)
	return c.maxWriteBytes(), nil
}

// History asks how many revisions (log indexes) of history the cluster keeps: reads at older ones get ErrCompacted. math.MaxUint64: all.
func (c *Client) History(ctx context.Context) (revisions uint64, err error) {
	none := func() ([]byte, error) { return nil, nil }
	err = c.ask(ctx, "kv.history", none, func(b []byte) (err error) {
		revisions, err = strconv.ParseUint(string(b), 10, 64)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ask for the history: %w", err)
	}
	return revisions, nil
}

// SetHistory sets how many revisions of history the cluster keeps, at least 1. Those that are given up do not come back when it is more again.
// It should be some times the nodes' SnapshotEntries: where history since the last snapshot is gone, a whole one is needed.
//
// Errors: ErrUnavailable: nothing was changed; ErrUnknownOutcome: it was sent, and the context ended before a leader answered that it is done. It can
// be set again: twice is the same as once.
func (c *Client) SetHistory(ctx context.Context, revisions uint64) error {
	text := func() ([]byte, error) { return strconv.AppendUint(nil, revisions, 10), nil }
	if err := c.repeat(ctx, true, "kv.history", text, func([]byte) error { return nil }); err != nil {
		return fmt.Errorf("set the history: %w", err)
	}
	return nil
}

// Leader returns the id of the node that serves now. Errors: ErrUnavailable.
func (c *Client) Leader(ctx context.Context) (string, error) {
	var leader kvpb.Leader
	if err := c.ask(ctx, "kv.leader", (&kvpb.Leader{}).MarshalVT, leader.UnmarshalVT); err != nil {
		return "", fmt.Errorf("ask for the leader: %w", err)
	}
	c.leader.Store(&leader)
	return leader.Node, nil
}
