package transport

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"quorate/node/raft"
)

// Gate is what every message of one node passes through, whatever carries it: on the way out it gets its envelope, on the
// way in it is decoded and checked, and what does not belong is refused, counted and logged. All methods are safe from several
// goroutines.
type Gate struct {
	self    raft.Peer
	boot    uint64
	logger  *slog.Logger
	cluster atomic.Pointer[raft.ClusterID]

	mu      sync.Mutex // guards all below
	refused map[string]uint64
	saidAt  map[string]time.Time
}

// NewGate returns the gate of a node. boot is its process's id.
func NewGate(self raft.Peer, boot uint64, logger *slog.Logger) *Gate {
	return &Gate{self: self, boot: boot, logger: logger, refused: map[string]uint64{}, saidAt: map[string]time.Time{}}
}

// SetCluster tells the cluster id: from now on messages carry it and are checked for it.
func (g *Gate) SetCluster(id raft.ClusterID) { g.cluster.Store(&id) }

// Encode encodes a request or a response of this node, into room if that has the capacity.
func (g *Gate) Encode(room []byte, message any) ([]byte, error) {
	env := Envelope{From: g.self, Boot: g.boot}
	if id := g.cluster.Load(); id != nil {
		env.Cluster = *id
	}
	return Encode(room, env, message)
}

// Receive decodes a request and says who sent it. One that the transport answers itself (a ping), and one that is refused,
// comes back with the answer to send and without a request. The request may share memory with b.
func (g *Gate) Receive(b []byte) (from raft.Peer, req Request, answer any) {
	env, message, err := Decode(b)
	if err == nil {
		err = g.admit(env, message)
	}
	if err != nil {
		return env.From, nil, &Refusal{Reason: g.refuse(env.From, err)}
	}
	if _, ok := message.(*PingRequest); ok {
		return env.From, nil, &PingResponse{From: g.self}
	}
	return env.From, message, nil
}

// admit checks the cluster id, and that the message is a request at all.
func (g *Gate) admit(env Envelope, message any) error {
	switch message.(type) {
	case *HelloRequest, *AdoptRequest:
		return nil // they come before there is a cluster id
	case *raft.VoteRequest, *raft.AppendRequest, *raft.InstallRequest, *raft.TimeoutNowRequest, *PingRequest, *ReadIndexRequest, *ProposeRequest:
	default:
		return &MessageError{Reason: ReasonMalformed, Err: fmt.Errorf("%T is no request", message)}
	}
	own := g.cluster.Load()
	switch {
	case own == nil:
		return &MessageError{Reason: ReasonNoCluster}
	case env.Cluster != *own:
		return &MessageError{Reason: ReasonCluster, Err: fmt.Errorf("cluster id %s, this node's is %s", env.Cluster, *own)}
	}
	return nil
}

// Answer decodes a response. The answer's error is a *RefusedError if the peer refused the request, and a *MessageError if what it
// sent cannot be accepted: then, too, somebody has answered.
func (g *Gate) Answer(b []byte, arrived time.Time) Answer {
	env, message, err := Decode(b)
	answer := Answer{Boot: env.Boot, Arrived: arrived}
	if refusal, ok := message.(*Refusal); ok {
		answer.Err = &RefusedError{From: env.From.ID, Reason: refusal.Reason}
		return answer
	}
	if own := g.cluster.Load(); err == nil && own != nil && env.Cluster != (raft.ClusterID{}) && env.Cluster != *own {
		err = &MessageError{Reason: ReasonCluster, Err: fmt.Errorf("cluster id %s, this node's is %s", env.Cluster, *own)}
	}
	if err != nil {
		g.refuse(env.From, err)
		answer.Err = err
		return answer
	}
	answer.Response = message
	return answer
}

// refuse counts a message that is not accepted, and says so now and then.
func (g *Gate) refuse(from raft.Peer, err error) (reason string) {
	reason = ReasonMalformed
	var message *MessageError
	if errors.As(err, &message) {
		reason = message.Reason
	}
	const sayAgain = 10 * time.Second
	g.mu.Lock()
	g.refused[reason]++
	count := g.refused[reason]
	now := time.Now()
	say := now.Sub(g.saidAt[reason]) > sayAgain
	if say {
		g.saidAt[reason] = now
	}
	g.mu.Unlock()
	if say {
		g.logger.Warn("refused a message", "from", from.ID, "error", err, "count", count)
	}
	return reason
}

// Refused counts the messages that were refused, by reason.
func (g *Gate) Refused() map[string]uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.refused)
}
