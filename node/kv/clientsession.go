package kv

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nuid"

	"quorate/node/kv/kvpb"
)

// sessionIdle is how long a client's session lives without a write.
const sessionIdle = time.Hour

// clientSession is the client's session: each of its messages with writes has a number in it, under which it may be sent again and takes
// effect once. It is registered when it is needed first, and again when the cluster has forgotten it.
type clientSession struct {
	off bool
	// ids: each message gets a random id in place of a place in a session.
	ids bool

	registering sync.Mutex // held by the one that registers

	mu   sync.Mutex // guards all below
	id   uint64
	next uint64
	// open are the numbers without an answer.
	open map[uint64]bool
}

// number is a message's place in a session, or its random id. The zero number is that of a message without either.
type number struct {
	session, sequence, lowWater uint64
	id                          string
	// until is when an id will be forgotten by the cluster, or soon.
	until time.Time
}

// idPatience is how long a message with an id is sent again: well below the two minutes for which the cluster remembers it.
const idPatience = time.Minute

// again reports whether the message may be sent again after somebody took it.
func (n number) again() bool {
	return n.session != 0 || n.id != "" && time.Now().Before(n.until)
}

// take gives out the next number of the session, and registers one if there is none. It is answered by done.
func (s *clientSession) take(ctx context.Context, c *Client) (number, error) {
	switch {
	case s.off:
		return number{}, nil
	case s.ids:
		return number{id: nuid.Next(), until: time.Now().Add(idPatience)}, nil
	}
	if n, ok := s.number(); ok {
		return n, nil
	}
	s.registering.Lock()
	defer s.registering.Unlock()
	if n, ok := s.number(); ok {
		return n, nil
	}
	var response kvpb.SessionResponse
	request := kvpb.SessionRequest{Version: commandVersion, IdleNs: int64(sessionIdle)}
	if err := c.ask(ctx, "kv.session", request.MarshalVT, response.UnmarshalVT); err != nil {
		return number{}, err
	}
	s.mu.Lock()
	s.id, s.next, s.open = response.Session, 1, map[uint64]bool{}
	s.mu.Unlock()
	n, _ := s.number()
	return n, nil
}

func (s *clientSession) number() (number, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id == 0 {
		return number{}, false
	}
	n := number{session: s.id, sequence: s.next, lowWater: s.next}
	s.next++
	for open := range s.open {
		n.lowWater = min(n.lowWater, open)
	}
	s.open[n.sequence] = true
	return n, true
}

// done tells that a message will not be sent again.
func (s *clientSession) done(n number) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.session == s.id {
		delete(s.open, n.sequence)
	}
}

// forget drops a session that the cluster does not know any more.
func (s *clientSession) forget(n number) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.session == s.id {
		s.id = 0
	}
}

// isExpired reports whether the cluster answered that it does not know the session.
func isExpired(err error) bool {
	var refused *RequestError
	return errors.As(err, &refused) && refused.Code == codeSession
}
