package natsrpc

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
)

// Messages wait in the client library at most as far as this before they are dropped as of a slow consumer: a node that is so far
// behind answers in time to none of them.
const (
	pendingMessages = 4096
	pendingBytes    = 64 << 20
)

// subscription has one goroutine, the client library's, that handles its messages one after the other.
type subscription struct {
	sub *nats.Subscription
	// ended is closed when that goroutine has ended, whatever ended it.
	ended chan struct{}
}

func subscribe(nc *nats.Conn, subject string, handle nats.MsgHandler) (*subscription, error) {
	sub, err := nc.Subscribe(subject, handle)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	s := &subscription{sub: sub, ended: make(chan struct{})}
	sub.SetClosedHandler(func(string) { close(s.ended) })
	if !sub.IsValid() { // perhaps it ended before the handler was set
		return nil, fmt.Errorf("subscribe to %s: %w", subject, nats.ErrConnectionClosed)
	}
	if err := sub.SetPendingLimits(pendingMessages, pendingBytes); err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, errors.Join(err, sub.Unsubscribe()))
	}
	return s, nil
}

// close ends the subscription and waits until its messages are no longer handled.
func (s *subscription) close(ctx context.Context) error {
	err := s.sub.Unsubscribe()
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrBadSubscription) {
		err = nil // it has ended, or is about to
	}
	if err != nil {
		return fmt.Errorf("unsubscribe from %s: %w", s.sub.Subject, err)
	}
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("unsubscribe from %s: %w", s.sub.Subject, ctx.Err())
	}
}
