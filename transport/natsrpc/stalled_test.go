package natsrpc_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"quorate/transport"
	"quorate/transport/natsrpc"
)

// stalling is a NATS server that one day says no more and reads no more, and from then on only accepts connections.
type stalling struct {
	net.Listener
	accepted atomic.Int32
	stall    chan struct{}
}

func startStalling(t *testing.T) *stalling {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	s := &stalling{Listener: listener, stall: make(chan struct{})}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			if s.accepted.Add(1) == 1 {
				go s.serve(conn)
			}
		}
	}()
	return s
}

func (s *stalling) serve(conn net.Conn) {
	fmt.Fprintf(conn, "INFO {\"server_id\":\"x\",\"version\":\"2.11.0\",\"proto\":1,\"headers\":true,\"max_payload\":1048576}\r\n")
	r := bufio.NewReader(conn)
	for {
		select {
		case <-s.stall:
			return
		default:
		}
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if line, _ := r.ReadString('\n'); strings.HasPrefix(line, "PING") {
			fmt.Fprint(conn, "PONG\r\n")
		}
	}
}

// TestCallReturnsWhileNATSStandsStill: RaftCore calls. The server reads no more, so a write takes as long as it may; after that the
// connection is made anew, with a server that says nothing, and a call must not wait for that.
func TestCallReturnsWhileNATSStandsStill(t *testing.T) {
	server := startStalling(t)
	quiet := slog.New(slog.DiscardHandler)
	conn, err := natsrpc.Connect(t.Context(), natsrpc.ConnectOptions{URL: "nats://" + server.Addr().String(), Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	a, err := natsrpc.New(conn, natsrpc.Config{Prefix: "q", Cluster: "c", Self: peerOf("a"), Boot: 1, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close(t.Context()) }()
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	close(server.stall)
	req := &transport.ProposeRequest{Data: make([]byte, 512<<10)}
	deadline := time.Now().Add(40 * time.Second)
	var slowest time.Duration
	slow := 0
	for server.accepted.Load() < 4 { // two attempts to reconnect came to nothing
		if time.Now().After(deadline) {
			t.Fatalf("%d connections in 40 s; the slowest call took %v", server.accepted.Load(), slowest)
		}
		begun := time.Now()
		a.Call(peerOf("b"), req, time.Second, func(transport.Answer) {})
		took := time.Since(begun)
		slowest = max(slowest, took)
		if took > 500*time.Millisecond {
			slow++
		}
	}
	if slow > 1 {
		t.Errorf("%d calls were held up, the slowest for %v: want one, that finds out", slow, slowest)
	}
}

// TestReplyReturnsWhileNATSIsDialed: RaftCore answers a request after its disk has synced, and the connection may be gone by then.
func TestReplyReturnsWhileNATSIsDialed(t *testing.T) {
	server := startServer(t, -1)
	a, b := join(t, server, "a", 1), join(t, server, "b", 2)
	a.SetCluster(cluster)
	b.SetCluster(cluster)
	requests := make(chan transport.Incoming, 1)
	if err := b.Listen(t.Context(), func(in transport.Incoming) { requests <- in }); err != nil {
		t.Fatal(err)
	}
	a.Call(b.peer, &transport.ReadIndexRequest{}, patient, func(transport.Answer) {})
	in := <-requests
	port := server.Port()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	dialed := make(chan net.Conn, 100)
	go func() {
		for {
			conn, err := listener.Accept() // and says nothing
			if err != nil {
				return
			}
			dialed <- conn
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		for range len(dialed) {
			_ = (<-dialed).Close()
		}
	})
	for range 2 { // both
		select {
		case conn := <-dialed:
			defer conn.Close()
		case <-time.After(patient):
			t.Fatal("the connection is not made anew")
		}
	}
	begun := time.Now()
	in.Reply(&transport.ReadIndexResponse{From: b.peer, Index: 1})
	if took := time.Since(begun); took > 500*time.Millisecond {
		t.Errorf("the answer took %v", took)
	}
}
