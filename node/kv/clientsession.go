package kv

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nuid"

	"quorate/node/kv/kvpb"
	"quorate/node/sessions"
)

// sessionIdle is how long a client's session lives without a write.
const sessionIdle = time.Hour

// clientSession is the client's session: each of its messages with writes has a number in it, under which it may be sent again and takes
// effect once. It is registered when it is needed first, and again when the cluster has forgotten it.
type clientSession struct {
	off bool
	// ids: each message gets a random id in place of a place in a session.
	ids bool

	registering chan struct{} // has a value while somebody registers

	mu sync.Mutex // guards all below
	id uint64
	// cluster that registered it. Of another one that has come under this name the same id is somebody else's session.
	cluster []byte
	// next number; open are those without an answer, low is the lowest of them, or next if there is none.
	next, low uint64
	open      map[uint64]bool
	// moved is closed when low moves or the session is forgotten, if somebody waits for that.
	moved chan struct{}
}

// sessionWindow is how far the numbers go ahead of the lowest one without an answer: what the cluster has to keep is then never more than twice that,
// and it refuses nothing.
const sessionWindow = sessions.MaxResults / 2

// number is a message's place in a session, or its random id. The zero number is that of a message without either.
type number struct {
	session, sequence, lowWater uint64
	cluster                     []byte
	id                          string
	// until is when an id will be forgotten by the cluster, or soon.
	until time.Time
}

// idPatience is how long a message with an id is sent again: well below the two minutes for which the cluster remembers it, unless 65,536
// others come meanwhile.
const idPatience = time.Minute

// again reports whether the message may be sent again after somebody took it.
func (n number) again() bool {
	return n.session != 0 || n.id != "" && time.Now().Before(n.until)
}

// take gives out the next number of the session, and registers one if there is none. It is answered by done. While the lowest open number is far
// behind, it waits for that.
func (s *clientSession) take(ctx context.Context, c *Client) (number, error) {
	switch {
	case s.off:
		return number{}, nil
	case s.ids:
		return number{id: nuid.Next(), until: time.Now().Add(idPatience)}, nil
	}
	for {
		n, moved := s.number()
		switch {
		case n.session != 0:
			return n, nil
		case moved == nil:
			if err := s.register(ctx, c); err != nil {
				return number{}, err
			}
			continue
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return number{}, unavailable(ctx.Err())
		}
	}
}

// number gives out a number, or says for what to wait; neither: there is no session.
func (s *clientSession) number() (n number, moved <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.id == 0:
		return number{}, nil
	case s.next-s.low >= sessionWindow:
		if s.moved == nil {
			s.moved = make(chan struct{})
		}
		return number{}, s.moved
	}
	n = number{session: s.id, cluster: s.cluster, sequence: s.next, lowWater: s.low}
	s.next++
	s.open[n.sequence] = true
	return n, nil
}

// register registers a session, unless another caller has done so.
func (s *clientSession) register(ctx context.Context, c *Client) error {
	select {
	case s.registering <- struct{}{}:
		defer func() { <-s.registering }()
	case <-ctx.Done():
		return unavailable(ctx.Err())
	}
	if s.registered() {
		return nil
	}
	var response kvpb.SessionResponse
	request := kvpb.SessionRequest{Version: commandVersion, IdleNs: int64(sessionIdle)}
	if err := c.ask(ctx, "kv.session", request.MarshalVT, response.UnmarshalVT); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id, s.cluster, s.next, s.low, s.open = response.Session, response.Cluster, 1, 1, map[uint64]bool{}
	return nil
}

func (s *clientSession) registered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id != 0
}

// done tells that a message will not be sent again.
func (s *clientSession) done(n number) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.session != s.id {
		return
	}
	delete(s.open, n.sequence)
	if s.low != n.sequence {
		return
	}
	for s.low < s.next && !s.open[s.low] {
		s.low++
	}
	s.wake()
}

// forget drops a session that the cluster does not know any more.
func (s *clientSession) forget(n number) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.session == s.id {
		s.id = 0
		s.wake()
	}
}

// wake wakes those who wait for low. mu must be held.
func (s *clientSession) wake() {
	if s.moved != nil {
		close(s.moved)
		s.moved = nil
	}
}

// isExpired reports whether the cluster answered that it does not know the session.
func isExpired(err error) bool { return isRefused(err, codeSession) }
