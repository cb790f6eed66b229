package natsrpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"quorate/node/raft"
	"quorate/transport"
)

// DuplicateError says that another process answers under this node's name.
type DuplicateError struct {
	Node raft.NodeID
	// Boot is the other process's id, or zero if its answer could not be read.
	Boot uint64
}

func (e *DuplicateError) Error() string {
	return fmt.Sprintf("node %s runs already (another process, boot id %016x, answers under its name): stop that one first, or give this node a name and a directory of its own", e.Node, e.Boot)
}

const (
	// A process that has just died with its machine may still be subscribed: it is asked twice, a second each, before its silence
	// counts as nobody.
	patience    = time.Second
	silentTries = 2
	// reconnectPatience is how long Listen waits for a connection that is lost just then.
	reconnectPatience = 5 * time.Second
)

// alone returns nil when nobody answers under this node's name: NATS says that nobody is there, or nobody says anything. Any
// answer, also a refusal and one that cannot be read, is somebody's.
func (t *Transport) alone(ctx context.Context) error {
	lostAt := time.Time{}
	for silent := 0; silent < silentTries; {
		answers := make(chan transport.Answer, 1)
		t.Call(raft.Peer{ID: t.cfg.Self.ID}, &transport.HelloRequest{Cluster: t.cfg.Cluster}, patience, func(a transport.Answer) { answers <- a })
		var a transport.Answer
		select {
		case a = <-answers:
		case <-ctx.Done():
			return t.unsure(context.Cause(ctx))
		}
		var refused *transport.RefusedError
		var unreadable *transport.MessageError
		switch {
		case a.Err == nil, errors.As(a.Err, &refused), errors.As(a.Err, &unreadable):
			return &DuplicateError{Node: t.cfg.Self.ID, Boot: a.Boot}
		case errors.Is(a.Err, transport.ErrNoResponders):
			return nil
		case errors.Is(a.Err, transport.ErrTimeout):
			silent++
		case disconnected(a.Err) && (lostAt.IsZero() || time.Since(lostAt) < reconnectPatience):
			if lostAt.IsZero() {
				lostAt = time.Now()
			}
			select {
			case <-time.After(reconnectWait):
			case <-ctx.Done():
			}
		default:
			return t.unsure(a.Err)
		}
	}
	t.logger.Warn("somebody is subscribed under this node's name and does not answer; taken for a process that has just died", "node", t.cfg.Self.ID)
	return nil
}

// disconnected reports whether a request was not sent, or not whole, because the connection is gone, or breaks just then.
func disconnected(err error) bool {
	var broken net.Error
	return errors.Is(err, transport.ErrDisconnected) || errors.As(err, &broken)
}

func (t *Transport) unsure(err error) error {
	return fmt.Errorf("make sure that no other process runs as node %s: %w", t.cfg.Self.ID, err)
}
