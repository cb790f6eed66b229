package transport

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"

	"quorate/node/raft"
)

var (
	// ErrNoResponders says that nobody is subscribed to the target's subject now: the process is gone, or was never
	// there. It comes within milliseconds, not after a timeout.
	ErrNoResponders = errors.New("no responders")
	// ErrTimeout says that no answer came in time. Whether the request arrived is not known.
	ErrTimeout = errors.New("no answer in time")
	// ErrDisconnected says that this node has no connection to NATS now; nothing was sent.
	ErrDisconnected = errors.New("not connected to NATS")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("transport is closed")
)

// RefusedError is a peer's answer that it will not handle a request: another cluster, an unknown version, a malformed
// message, a busy node.
type RefusedError struct {
	From   raft.NodeID
	Reason string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s refused the request: %s", e.From, e.Reason)
}

// Request is one of *raft.VoteRequest, *raft.AppendRequest, *raft.InstallRequest, *raft.TimeoutNowRequest, *HelloRequest,
// *AdoptRequest, *PingRequest, *ReadIndexRequest, *ProposeRequest.
type Request any

// Response is one of *raft.VoteResponse, *raft.AppendResponse, *raft.TimeoutNowResponse, *HelloResponse, *AdoptResponse,
// *PingResponse, *ReadIndexResponse, *ProposeResponse, of the kind that fits its request.
type Response any

// Answer is what became of a call.
type Answer struct {
	// Response, or nil if Err is set.
	Response Response
	// Boot is the boot id of the process that answered: random, drawn at each start.
	Boot uint64
	// Arrived is when the answer reached this process.
	Arrived time.Time
	// Err is one of the errors above, a *RefusedError, a *MessageError about an answer that cannot be accepted, or what kept the
	// request from being sent.
	Err error
}

// Incoming is a request that arrived.
type Incoming struct {
	Request Request
	// From is who sent it, as the envelope says.
	From raft.Peer
	// Arrived is when it reached this process; timers judge by it.
	Arrived time.Time
	// Trace is the sender's span, or the zero one if it is not traced.
	Trace trace.SpanContext
	// Reply sends the response. It must be called exactly once, from any goroutine, and does not block.
	Reply func(Response)
	// Refuse sends a refusal instead. The caller of Call sees a *RefusedError.
	Refuse func(reason string)
}

// TooLargeError says that a request is larger than the transport can carry now. It was not sent.
type TooLargeError struct {
	To          raft.NodeID
	Size, Limit int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("call %s: a message of %d bytes is over the NATS server's limit of %d: raise its max_payload", e.To, e.Size, e.Limit)
}

// Transport carries requests to peers and hands on those that arrive. All methods are safe from several goroutines.
type Transport interface {
	// Call sends the request to the peer and returns at once, or after two seconds when the network takes nothing. done is called exactly once, from a goroutine of the
	// transport's, with the answer or with an error at the latest when timeout has passed; it must not block. Only after
	// Close it is called before Call returns, with ErrClosed. The request is the caller's again when Call returns.
	// A peer with incarnation zero stands for whoever has that name (only for HelloRequest and AdoptRequest).
	Call(to raft.Peer, req Request, timeout time.Duration, done func(Answer))
	// Listen starts handing requests for this node to handle, which is called from goroutines of the transport's, in
	// the order of arrival of each sender's, and must not block for long. Requests that are malformed, of an unknown
	// version or for another cluster are refused and counted before that. Listen is called once. Raft requests
	// (vote, append, ping) are refused until SetCluster was called. It may block, a few seconds at most, until the context ends.
	Listen(ctx context.Context, handle func(Incoming)) error
	// SetCluster tells the cluster id, once it is known. From then on every message carries it and is checked for it.
	SetCluster(raft.ClusterID)
	// MaxRequestBytes is the largest encoded request that the transport can carry now, envelope included.
	MaxRequestBytes() int
	// Connected reports whether requests can be sent now.
	Connected() bool
	// Refused counts the messages that were refused, by reason.
	Refused() map[string]uint64
	// Close stops handing on requests, fails all calls that wait with ErrClosed, and releases everything. It waits
	// for its goroutines.
	Close(ctx context.Context) error
}

// TraceCarrier is a Transport that carries a span context beside a request. The receiver finds it in Incoming.Trace.
type TraceCarrier interface {
	// CallTraced is Call with the sender's span.
	CallTraced(to raft.Peer, req Request, span trace.SpanContext, timeout time.Duration, done func(Answer))
}
