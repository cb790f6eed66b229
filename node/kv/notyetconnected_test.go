package kv_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node/kv"
	"quorate/transport/embednats"
)

// TestAClientThatIsNotYetConnectedWaits: a NATS connection may be made before there is a server (nats.RetryOnFailedConnect). How much that one
// takes is not known before.
func TestAClientThatIsNotYetConnectedWaits(t *testing.T) {
	c := startCluster(t, "n1")
	client, _, connected := c.clientWithoutServer()
	result := make(chan error, 1)
	go func() {
		_, err := client.Put(within(t, 60*time.Second), "k", []byte("v"))
		result <- err
	}()
	select {
	case err := <-result:
		t.Fatalf("before there is a server: %v", err)
	case <-time.After(100 * time.Millisecond): // it need not be long: it would be refused at once
	}
	connected(embednats.Options{})
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// TestAValueThatAnotherServerDoesNotTakeIsTooLarge: the client was not connected yet, and could not say so when it was asked to.
func TestAValueThatAnotherServerDoesNotTakeIsTooLarge(t *testing.T) {
	for name, sizes := range map[string][]int{"alone": {200 << 10}, "with others": {200 << 10, 100, 100, 100, 100, 100, 100, 100}} {
		t.Run(name, func(t *testing.T) {
			c := startClusterAt(t, embednats.Options{Port: -1, MaxPayload: 64 << 10}, "n1")
			client, _, connected := c.clientWithoutServer()
			results := make([]chan error, len(sizes))
			for i, size := range sizes {
				results[i] = make(chan error, 1)
				go func() {
					_, err := client.Put(within(t, 60*time.Second), fmt.Sprint(i), make([]byte, size))
					results[i] <- err
				}()
			}
			connected(embednats.Options{MaxPayload: 64 << 10})
			for i, size := range sizes {
				var tooLarge *kv.TooLargeError
				if err := <-results[i]; errors.As(err, &tooLarge) != (size > 64<<10) || err != nil && tooLarge == nil {
					t.Errorf("%d bytes: %v", size, err)
				}
			}
		})
	}
}

// TestNothingLargeIsSentBeforeTheServerIsKnown: it would close the connection.
func TestNothingLargeIsSentBeforeTheServerIsKnown(t *testing.T) {
	t.Parallel()
	for name, option := range map[string]kv.ClientOption{"by an id": kv.WithMessageIDs(), "without a number": kv.WithoutSession()} {
		t.Run(name, func(t *testing.T) {
			c := startClusterAt(t, embednats.Options{Port: -1, MaxPayload: 64 << 10}, "n1")
			ctx := within(t, 60*time.Second)
			client, conn, connected := c.clientWithoutServer(option)
			result := make(chan error, 1)
			go func() {
				_, err := client.Put(ctx, "k", make([]byte, 200<<10))
				result <- err
			}()
			waitSent(ctx, t, conn, 3) // it has asked for the leader, in vain, and again
			connected(embednats.Options{MaxPayload: 64 << 10})
			var tooLarge *kv.TooLargeError
			if err := <-result; !errors.As(err, &tooLarge) {
				t.Error(err)
			}
			if _, err := client.Put(ctx, "k", nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestACallBeforeThereIsAServerEnds with its client, and with the connection.
func TestACallBeforeThereIsAServerEnds(t *testing.T) {
	c := startCluster(t)
	for want, end := range map[error]func(*kv.Client, *nats.Conn){
		kv.ErrClosed:      func(client *kv.Client, _ *nats.Conn) { _ = client.Close() },
		kv.ErrUnavailable: func(_ *kv.Client, conn *nats.Conn) { conn.Close() },
	} {
		client, conn, connected := c.clientWithoutServer(kv.WithMessageIDs())
		ctx := within(t, 60*time.Second)
		result := make(chan error, 1)
		go func() {
			_, err := client.Put(ctx, "k", nil)
			result <- err
		}()
		waitSent(ctx, t, conn, 1)
		end(client, conn)
		select {
		case err := <-result:
			if !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		case <-ctx.Done():
			t.Fatalf("it still waits; want %v", want)
		}
		connected(embednats.Options{})
	}
}

// waitSent waits until so many messages have been given to the connection.
func waitSent(ctx context.Context, t *testing.T, conn *nats.Conn, want uint64) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for conn.Stats().OutMsgs < want {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the client has sent %d messages, want %d", conn.Stats().OutMsgs, want)
		}
	}
}

// clientWithoutServer stops NATS, and makes a client that is not connected; the function it returns starts NATS again.
func (c *cluster) clientWithoutServer(opts ...kv.ClientOption) (client *kv.Client, conn *nats.Conn, connected func(embednats.Options)) {
	c.t.Helper()
	if len(c.members) > 0 { // it serves
		if _, err := c.client().Put(within(c.t, 60*time.Second), "first", nil); err != nil {
			c.t.Fatal(err)
		}
	}
	port, url := c.server.Port(), c.server.ClientURL()
	if err := c.server.Close(); err != nil {
		c.t.Fatal(err)
	}
	conn, err := nats.Connect(url, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(conn.Close)
	if client, err = kv.NewClient(conn, "test", opts...); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = client.Close() })
	return client, conn, func(options embednats.Options) {
		c.t.Helper()
		options.Port = port
		if c.server, err = embednats.Start(options); err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { _ = c.server.Close() })
	}
}
