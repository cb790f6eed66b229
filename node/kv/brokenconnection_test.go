package kv_test

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node/kv"
)

// breaking dials connections to NATS whose next large write fails, and breaks them, when it is armed.
type breaking struct {
	armed  atomic.Bool
	broken atomic.Int64
}

func (b *breaking) Dial(network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	return &breakingConn{Conn: conn, breaking: b}, nil
}

type breakingConn struct {
	net.Conn
	*breaking
}

func (c *breakingConn) Write(b []byte) (int, error) {
	if len(b) > 32<<10 && c.armed.CompareAndSwap(true, false) {
		c.broken.Add(1)
		_ = c.Close() // it is broken
		return 0, errors.New("broken pipe")
	}
	return c.Conn.Write(b)
}

// TestAConnectionThatBreaksUnderAWriteIsNoAnswer: NATS writes a large message when it is published, and so publishing fails when the
// connection is just gone. It comes back, and nothing of that is an answer to the write.
func TestAConnectionThatBreaksUnderAWriteIsNoAnswer(t *testing.T) {
	c := startCluster(t, "n1")
	dialer := &breaking{}
	connect := func(t *testing.T, options ...kv.ClientOption) *kv.Client {
		conn, err := nats.Connect(c.server.ClientURL(), nats.SetCustomDialer(dialer), nats.MaxReconnects(-1), nats.ReconnectWait(time.Millisecond),
			nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		client, err := kv.NewClient(conn, "test", options...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		if _, err := client.Put(within(t, 30*time.Second), "first", nil); err != nil {
			t.Fatal(err)
		}
		return client
	}
	check := func(t *testing.T) {
		if dialer.broken.Swap(0) != 1 {
			t.Error("no write broke the connection: nothing was tested")
		}
	}
	for name, options := range map[string][]kv.ClientOption{"in a session": nil, "by an id": {kv.WithMessageIDs()}} {
		t.Run(name, func(t *testing.T) {
			client := connect(t, options...)
			dialer.armed.Store(true)
			if _, err := client.Put(within(t, 30*time.Second), "large", make([]byte, 64<<10), kv.IfRevision(0)); err != nil {
				t.Error(err)
			}
			check(t)
			if _, err := client.Delete(within(t, 30*time.Second), "large"); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("in the middle of a batch", func(t *testing.T) {
		client := connect(t)
		dialer.armed.Store(true)
		ctx := within(t, 30*time.Second)
		var group sync.WaitGroup
		for i := range 128 {
			group.Go(func() {
				if _, err := client.Put(ctx, fmt.Sprintf("k%d", i), make([]byte, 8<<10), kv.IfRevision(0)); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		check(t)
	})
	t.Run("without a number", func(t *testing.T) {
		client := connect(t, kv.WithoutSession())
		dialer.armed.Store(true)
		if _, err := client.Put(within(t, 30*time.Second), "other", make([]byte, 64<<10)); !errors.Is(err, kv.ErrUnknownOutcome) {
			t.Errorf("%v, want %v", err, kv.ErrUnknownOutcome)
		}
		check(t)
	})
}
