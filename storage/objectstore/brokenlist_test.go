package objectstore

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"quorate/transport/embednats"
)

// stalling is a network between a client and its server: what the server sends after the client has sent one text is held back until it sends
// another. Each time, until it was so often.
type stalling struct {
	hold, release []byte

	mu    sync.Mutex // guards what follows
	moved *sync.Cond
	times int
	held  bool
}

// through returns a connection to the server through the network.
func (s *stalling) through(t *testing.T, server *embednats.Server) *nats.Conn {
	t.Helper()
	s.moved = sync.NewCond(&s.mu)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			behind, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", server.Port()))
			if err != nil {
				t.Error(err)
				_ = client.Close()
				return
			}
			group.Go(func() { s.pass(client, behind, s.heard) })
			group.Go(func() { s.pass(behind, client, s.wait) })
		}
	})
	conn, err := nats.Connect(fmt.Sprintf("nats://127.0.0.1:%d", listener.Addr().(*net.TCPAddr).Port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		s.set(false)
		_ = listener.Close()
		group.Wait()
	})
	return conn
}

func (s *stalling) pass(from, to net.Conn, before func(said []byte)) {
	defer from.Close()
	defer to.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		before(b[:n])
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// heard is told what the client says: it flushes each command at once, so that none is cut.
func (s *stalling) heard(said []byte) {
	s.mu.Lock()
	begins := s.times > 0 && bytes.Contains(said, s.hold)
	if begins {
		s.times--
	}
	s.mu.Unlock()
	if begins {
		s.set(true)
	} else if bytes.Contains(said, s.release) {
		s.set(false)
	}
}

func (s *stalling) set(held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = held
	s.moved.Broadcast()
}

func (s *stalling) wait([]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.held {
		s.moved.Wait()
	}
}

// TestAListThatLosesObjectsOnTheWayIsMadeAgain: the client gives a fetch up when nothing comes for a second, without an error, and the server
// does not send again what it has sent. A sweep would take what is not in the list for what nobody needs.
func TestAListThatLosesObjectsOnTheWayIsMadeAgain(t *testing.T) {
	t.Parallel()
	server := startServer(t, true)
	near := newTestBucket(t, server.connect(), clusterA, BucketOptions{})
	const blobs = listBatch + 10
	for i := range blobs {
		put(t, near, fmt.Sprintf("part-%d", i), []byte{byte(i)})
	}
	lossy := func(times int) *Bucket {
		network := &stalling{hold: []byte("CONSUMER.MSG.NEXT"), release: []byte("UNSUB"), times: times}
		return newTestBucket(t, network.through(t, server.server), clusterA, BucketOptions{})
	}
	if got, err := lossy(1).List(t.Context()); err != nil || len(got) != blobs {
		t.Errorf("a list with one break has %d of %d objects (%v)", len(got), blobs, err)
	}
	got, err := lossy(100).List(t.Context())
	if wantUnavailable(t, err); len(got) != 0 {
		t.Errorf("a list that breaks each time has %d objects", len(got))
	}
	var unavailable *UnavailableError
	if errors.As(err, &unavailable) && unavailable.Lasting {
		t.Errorf("nobody needs to do anything about: %v", err)
	}
}
