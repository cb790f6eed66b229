package node_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"quorate/node"
)

// cutOff is a way to a NATS server that one day carries nothing more: connections end, and new ones are accepted and say nothing, as where a
// firewall or a host that hangs stands between.
type cutOff struct {
	net.Listener
	mu    sync.Mutex // guards all below
	cut   bool
	conns []net.Conn
	// silent gets a value for each connection that is accepted after the cut.
	silent chan struct{}
}

func startCutOff(t *testing.T, server string) *cutOff {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutOff{Listener: listener, silent: make(chan struct{}, 1000)}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.conns = append(c.conns, in)
			if c.cut {
				c.silent <- struct{}{}
				c.mu.Unlock()
				continue
			}
			out, err := net.Dial("tcp", server)
			if err != nil {
				_ = in.Close()
				c.mu.Unlock()
				continue
			}
			c.conns = append(c.conns, out)
			c.mu.Unlock()
			pipe := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				_, _ = to.Close(), from.Close()
			}
			group.Go(func() { pipe(in, out) })
			group.Go(func() { pipe(out, in) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		c.end(true)
		group.Wait()
	})
	return c
}

// end ends all connections.
func (c *cutOff) end(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}

// TestANodeThatIsCutOffFromNATSDoesNotBlock: its connections dial for seconds then, and answer nothing meanwhile. Status does not block, and
// neither does what has RaftCore do something.
func TestANodeThatIsCutOffFromNATSDoesNotBlock(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1")
	way := startCutOff(t, fmt.Sprintf("127.0.0.1:%d", c.server.Port()))
	c.tune = func(cfg *node.Config) { cfg.URL = "nats://" + way.Addr().String() }
	c.start("n1")
	n := c.leader()
	way.end(true)
	for range 3 { // each connection dials
		select {
		case <-way.silent:
		case <-within(t, 10*time.Second).Done():
			t.Fatal("not all connections are made anew")
		}
	}
	deadline := time.Now().Add(time.Second)
	for time.Now().Before(deadline) {
		for what, f := range map[string]func(){
			"Status": func() { n.Status() },
			"Switch": func() {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				if err := n.Switch(ctx, node.Switches{}); err != nil {
					t.Error(err)
				}
			},
		} {
			begun := time.Now()
			if f(); time.Since(begun) > 500*time.Millisecond {
				t.Fatalf("%s took %v", what, time.Since(begun))
			}
		}
	}
}
