package natsrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"quorate/node/raft"
	"quorate/transport"
)

// Config says whose transport it is.
type Config struct {
	// Prefix begins every subject: one token, or several with dots between them.
	Prefix string
	// Cluster is the cluster's name.
	Cluster string
	Self    raft.Peer
	// Boot is this process's id.
	Boot   uint64
	Logger *slog.Logger
}

// Transport implements transport.Transport over one NATS connection.
type Transport struct {
	nc     *nats.Conn
	live   *Liveness
	cfg    Config
	logger *slog.Logger
	gate   *transport.Gate
	calls  *calls
	handle func(transport.Incoming)
	// stem begins the subjects of all nodes.
	stem  string
	rooms rooms
	// maxPayload is the newest that was seen.
	maxPayload atomic.Int64

	mu     sync.Mutex // guards all below
	subs   []*subscription
	closed bool
}

// New returns a transport over nc, which stays the caller's. It can call peers from now on.
func New(nc *nats.Conn, cfg Config) (*Transport, error) {
	if err := checkNames(cfg); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	t := &Transport{
		nc: nc, live: WatchLiveness(nc), cfg: cfg, logger: cfg.Logger, gate: transport.NewGate(cfg.Self, cfg.Boot, cfg.Logger),
		stem: cfg.Prefix + "." + cfg.Cluster + ".raft.",
	}
	t.maxPayload.Store(nc.MaxPayload())
	var err error
	if t.calls, err = openCalls(t.live, t.gate.Answer); err != nil {
		t.live.Close()
		return nil, err
	}
	return t, nil
}

// SetCluster tells the cluster id.
func (t *Transport) SetCluster(id raft.ClusterID) { t.gate.SetCluster(id) }

// MaxRequestBytes is the payload limit of the NATS server connected to or, while there is none, of the one before.
func (t *Transport) MaxRequestBytes() int {
	if t.live.Up() { // who dials answers nothing
		t.maxPayload.Store(t.nc.MaxPayload())
	}
	return int(t.maxPayload.Load())
}

// Connected reports whether NATS is connected.
func (t *Transport) Connected() bool { return t.live.Up() }

// Refused counts refused messages by reason.
func (t *Transport) Refused() map[string]uint64 { return t.gate.Refused() }

// Call sends a request to a peer; done gets the answer.
func (t *Transport) Call(to raft.Peer, req transport.Request, timeout time.Duration, done func(transport.Answer)) {
	t.call(to, req, nil, timeout, done)
}

// CallTraced is Call with the sender's span, in the headers of the message.
func (t *Transport) CallTraced(to raft.Peer, req transport.Request, span trace.SpanContext, timeout time.Duration, done func(transport.Answer)) {
	var header nats.Header
	if span.IsSampled() {
		header = nats.Header{}
		InjectTrace(header, span)
	}
	t.call(to, req, header, timeout, done)
}

func (t *Transport) call(to raft.Peer, req transport.Request, header nats.Header, timeout time.Duration, done func(transport.Answer)) {
	rpc, ok := rpcOf(req)
	if !ok {
		t.calls.fail(fmt.Errorf("call %s: %T is no request", to.ID, req), done)
		return
	}
	if !t.live.Up() {
		t.calls.fail(transport.ErrDisconnected, done)
		return
	}
	room := t.rooms.take()
	defer t.rooms.put(room)
	b, err := room.encode(t.gate, req)
	if err != nil {
		t.calls.fail(err, done)
		return
	}
	limit := t.MaxRequestBytes()
	if len(b) > limit {
		t.calls.fail(&transport.TooLargeError{To: to.ID, Size: len(b), Limit: limit}, done)
		return
	}
	if header != nil && len(b)+maxTraceHeader > limit {
		header = nil // what must arrive matters more than that it is seen
	}
	t.calls.send(t.subject(to, rpc), header, b, timeout, done)
}

// Close stops everything and waits for it. It must not be called from within a handler or a done.
func (t *Transport) Close(ctx context.Context) error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	subs := t.subs
	t.mu.Unlock()
	var errs []error
	for _, s := range subs {
		errs = append(errs, s.close(ctx))
	}
	errs = append(errs, t.calls.close(ctx))
	t.live.Close()
	return errors.Join(errs...)
}
