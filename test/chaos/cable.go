package chaos

import (
	"context"
	"net"
	"sync"
	"testing"
)

// direction of bytes in a cable.
type direction int

const (
	toServer direction = iota
	toClient
)

// cable is what a node reaches its NATS server by: a TCP proxy whose connections can be cut, or held, in one direction or both. What was held is
// delivered late, as a network does that comes back.
type cable struct {
	listener net.Listener
	target   string
	group    sync.WaitGroup

	mu     sync.Mutex
	flow   [2]chan struct{} // closed while bytes flow
	conns  map[net.Conn]bool
	closed bool
}

// layCable starts a cable to the address; it is gone with the test.
func layCable(tb testing.TB, target string) *cable {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	c := &cable{listener: listener, target: target, conns: map[net.Conn]bool{}}
	for d := range c.flow {
		c.flow[d] = make(chan struct{})
		close(c.flow[d])
	}
	c.group.Go(c.accept)
	tb.Cleanup(c.close)
	return c
}

func (c *cable) url() string { return "nats://" + c.listener.Addr().String() }

func (c *cable) accept() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.group.Go(func() { c.connect(client) })
	}
}

func (c *cable) connect(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := new(net.Dialer).DialContext(context.Background(), "tcp", c.target)
	if err != nil {
		return // NATS is away
	}
	defer func() { _ = server.Close() }()
	if !c.keep(client, server) {
		return
	}
	defer c.forget(client, server)
	var both sync.WaitGroup
	both.Go(func() { c.carry(server, client, toServer) })
	both.Go(func() { c.carry(client, server, toClient) })
	both.Wait()
}

// carry copies until either end is closed, and closes both.
func (c *cable) carry(to, from net.Conn, d direction) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		c.mu.Lock()
		flows := c.flow[d]
		c.mu.Unlock()
		<-flows
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (c *cable) keep(conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		c.conns[conn] = true
	}
	return !c.closed
}

func (c *cable) forget(conns ...net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		delete(c.conns, conn)
	}
}

// hold keeps back what goes in that direction, until release.
func (c *cable) hold(d direction) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flow[d] = make(chan struct{})
}

// release lets all flow that is held.
func (c *cable) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, flows := range c.flow {
		select {
		case <-flows:
		default:
			close(flows)
		}
	}
}

// cut closes the connections that are there; new ones can be made.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		_ = conn.Close()
	}
}

func (c *cable) close() {
	_ = c.listener.Close()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.release()
	c.cut()
	c.group.Wait()
}
