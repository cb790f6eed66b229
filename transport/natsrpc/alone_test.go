package natsrpc_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"

	"quorate/transport"
	"quorate/transport/natsrpc"
)

// squat subscribes where node n is asked for its name, as another process would.
func squat(t *testing.T, by *endpoint, handle nats.MsgHandler) {
	t.Helper()
	if _, err := by.conn.Subscribe("q.c.raft.n.hello", handle); err != nil {
		t.Fatal(err)
	}
	if err := by.conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

// A process of another version, or one that is stopping, runs all the same.
func TestWhoeverAnswersUnderTheNameIsADuplicate(t *testing.T) {
	refusal, err := transport.Encode(nil, transport.Envelope{From: peerOf("n"), Boot: 77}, &transport.Refusal{Reason: "node is stopped"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		answer []byte
		boot   uint64
	}{
		"refuses":                {refusal, 77},
		"speaks another version": {[]byte{8, 9}, 0},
		"speaks rubbish":         {[]byte("rubbish"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			server := startServer(t, -1)
			squat(t, join(t, server, "other", 1), func(m *nats.Msg) { _ = m.Respond(c.answer) })
			n := join(t, server, "n", 2)
			var duplicate *natsrpc.DuplicateError
			if err := n.Listen(t.Context(), echo(n.peer)); !errors.As(err, &duplicate) || duplicate.Node != "n" || duplicate.Boot != c.boot {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// A machine that lost its power is subscribed until its server notices.
func TestSilentPredecessorIsTakenForDead(t *testing.T) {
	server := startServer(t, -1)
	asked := make(chan struct{}, 16)
	squat(t, join(t, server, "other", 1), func(*nats.Msg) { asked <- struct{}{} })
	n := join(t, server, "n", 2)
	if err := n.Listen(t.Context(), echo(n.peer)); err != nil {
		t.Fatal(err)
	}
	if len(asked) < 2 {
		t.Errorf("it was asked %d times", len(asked))
	}
}

// Without a connection nobody can tell who else runs.
func TestListenWaitsForTheConnection(t *testing.T) {
	server := startServer(t, -1)
	n := join(t, server, "n", 2)
	port := server.Port()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the loss to be seen", func() bool { return !n.Connected() })
	listened := make(chan error, 1)
	go func() { listened <- n.Listen(t.Context(), echo(n.peer)) }()
	startServer(t, port)
	if err := <-listened; err != nil {
		t.Fatal(err)
	}
	other := join(t, server, "other", 1) // the same port
	if answer := call(t, other, nameOnly("n"), &transport.HelloRequest{}, patient); answer.Err != nil || answer.Boot != 2 {
		t.Fatalf("got %+v", answer)
	}
}

// breaking dials connections of which the first breaks when a node asks for its own name: before the client library has seen that it is gone.
type breaking struct{ broke atomic.Bool }

func (b *breaking) Dial(network, address string) (net.Conn, error) {
	conn, err := net.DialTimeout(network, address, patient)
	if err != nil {
		return nil, err
	}
	return &breakingConn{Conn: conn, of: b}, nil
}

type breakingConn struct {
	net.Conn
	of *breaking
}

func (c *breakingConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("q.c.raft.n.hello")) && c.of.broke.CompareAndSwap(false, true) {
		_ = c.Close()
		return 0, &net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE}
	}
	return c.Conn.Write(b)
}

// A server that is restarted just when a node starts.
func TestListenWaitsForTheConnectionThatBreaksUnderIt(t *testing.T) {
	server := startServer(t, -1)
	dialer := &breaking{}
	quiet := slog.New(slog.DiscardHandler)
	conn, err := natsrpc.Connect(t.Context(), natsrpc.ConnectOptions{
		URL: server.ClientURL(), Logger: quiet, Options: []nats.Option{nats.SetCustomDialer(dialer)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	n, err := natsrpc.New(conn, natsrpc.Config{Prefix: "q", Cluster: "c", Self: peerOf("n"), Boot: 2, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close(context.Background()) }()
	if err := n.Listen(t.Context(), echo(peerOf("n"))); err != nil || !dialer.broke.Load() {
		t.Fatalf("broken: %t; %v", dialer.broke.Load(), err)
	}
}

func TestListenFailsWithoutNATS(t *testing.T) {
	server := startServer(t, -1)
	n := join(t, server, "n", 2)
	n.conn.Close()
	if err := n.Listen(t.Context(), echo(n.peer)); !errors.Is(err, transport.ErrDisconnected) {
		t.Fatalf("got %v", err)
	}
}

func TestListenEndsWithItsContext(t *testing.T) {
	server := startServer(t, -1)
	n := join(t, server, "n", 2)
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the loss to be seen", func() bool { return !n.Connected() })
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("it is stopped")
	cancel(stopped)
	if err := n.Listen(ctx, echo(n.peer)); !errors.Is(err, stopped) {
		t.Fatalf("got %v", err)
	}
}
