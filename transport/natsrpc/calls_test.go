package natsrpc_test

import (
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node/raft"
	"quorate/transport"
	"quorate/transport/natsrpc"
)

// dialer remembers its connections, so that a test can cut them as the death of a process does.
type dialer struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (d *dialer) Dial(network, address string) (net.Conn, error) {
	c, err := net.Dial(network, address)
	if err == nil {
		d.mu.Lock()
		d.conns = append(d.conns, c)
		d.mu.Unlock()
	}
	return c, err
}

func (d *dialer) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		_ = c.Close()
	}
}

// Instant failover rests on this: the caller learns of the death at once, long before its timeout.
func TestDeadProcessHasNoRespondersAtOnce(t *testing.T) {
	server := startServer(t, -1)
	a := join(t, server, "a", 1)
	wire := &dialer{}
	conn, err := nats.Connect(server.ClientURL(), nats.SetCustomDialer(wire), nats.NoReconnect())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b, err := natsrpc.New(conn, natsrpc.Config{Prefix: "q", Cluster: "c", Self: peerOf("b"), Boot: 2, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	a.SetCluster(cluster)
	b.SetCluster(cluster)
	if err := b.Listen(t.Context(), echo(peerOf("b"))); err != nil {
		t.Fatal(err)
	}
	if answer := call(t, a, peerOf("b"), &transport.PingRequest{}, patient); answer.Err != nil {
		t.Fatal(answer.Err)
	}
	wire.cut()
	died := time.Now()
	for {
		answer := call(t, a, peerOf("b"), &transport.PingRequest{}, 20*time.Millisecond)
		if errors.Is(answer.Err, transport.ErrNoResponders) {
			break
		}
		if time.Since(died) > 10*time.Second {
			t.Fatalf("ten seconds after its death: %+v", answer)
		}
	}
	t.Logf("no responders %v after the connection was cut", time.Since(died))
	if limit := 500 * time.Millisecond; time.Since(died) > limit { // an election timeout; it takes a few ms on a quiet machine
		t.Errorf("no responders only after %v", time.Since(died))
	}
	if err := b.Close(t.Context()); err != nil {
		t.Errorf("close on a connection that is gone: %v", err)
	}
}

// RaftCore and the workers read what done sends to: done from within Call could block them for ever.
func TestDoneIsNeverCalledFromWithinCall(t *testing.T) {
	server, a, b := pair(t)
	var mu sync.Mutex
	callUnderLock := func(req transport.Request) transport.Answer {
		answers := make(chan transport.Answer, 1)
		mu.Lock()
		a.Call(b.peer, req, patient, func(answer transport.Answer) {
			mu.Lock()
			defer mu.Unlock()
			answers <- answer
		})
		mu.Unlock()
		return <-answers
	}
	if answer := callUnderLock("no request"); answer.Err == nil || !strings.Contains(answer.Err.Error(), "string is no request") {
		t.Errorf("what is no request: %+v", answer)
	}
	huge := &raft.AppendRequest{Term: 1, Leader: a.peer, Entries: []raft.Entry{{Raw: make([]byte, a.MaxRequestBytes())}}}
	if answer := callUnderLock(huge); answer.Err == nil || !strings.Contains(answer.Err.Error(), "raise its max_payload") {
		t.Errorf("over the limit: %+v", answer)
	}
	if answer := callUnderLock(&transport.AdoptRequest{}); answer.Err == nil || !strings.Contains(answer.Err.Error(), "encode") {
		t.Errorf("what cannot be encoded: %+v", answer)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the loss to be seen", func() bool { return !a.Connected() })
	if answer := callUnderLock(&transport.PingRequest{}); !errors.Is(answer.Err, transport.ErrDisconnected) {
		t.Errorf("without a connection: %+v", answer)
	}
}

// A message handed to a dead connection must not be sent when it is back: it is old by then.
func TestNothingIsSentAfterAReconnect(t *testing.T) {
	server, a, b := pair(t)
	port := server.Port()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the loss to be seen", func() bool { return !a.Connected() })
	for range 100 {
		call(t, a, b.peer, &raft.VoteRequest{Term: 1, Candidate: a.peer}, patient)
	}
	second := startServer(t, port)
	// Whatever a sends from now on passes this ear.
	ear, err := nats.Connect(second.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer ear.Close()
	heard := make(chan *nats.Msg, 256)
	if _, err := ear.ChanSubscribe("q.c.raft.*.vote.*", heard); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "an answer again", func() bool {
		return call(t, a, b.peer, &transport.PingRequest{}, time.Second).Err == nil
	})
	if err := ear.Flush(); err != nil {
		t.Fatal(err)
	}
	if len(heard) > 0 {
		t.Fatalf("%d old messages were sent", len(heard))
	}
}

func TestCloseWaitsForDone(t *testing.T) {
	server, a, b := pair(t)
	_ = server
	entered, release := make(chan struct{}), make(chan struct{})
	a.Call(b.peer, &transport.PingRequest{}, patient, func(transport.Answer) {
		close(entered)
		<-release
	})
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- a.Close(t.Context()) }()
	select {
	case err := <-closed:
		t.Fatalf("closed while done was running: %v", err)
	case <-time.After(50 * time.Millisecond): // nothing to wait for: it must not happen
	}
	close(release)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
}

func TestNamesThatCannotStandInASubjectAreRefused(t *testing.T) {
	server := startServer(t, -1)
	a := join(t, server, "a", 1)
	for name, c := range map[string]natsrpc.Config{
		"prefix":      {Prefix: "q.>", Cluster: "c", Self: peerOf("n")},
		"no prefix":   {Cluster: "c", Self: peerOf("n")},
		"cluster":     {Prefix: "q", Cluster: "*", Self: peerOf("n")},
		"two tokens":  {Prefix: "q", Cluster: "c.d", Self: peerOf("n")},
		"node":        {Prefix: "q", Cluster: "c", Self: peerOf("n 1")},
		"nobody":      {Prefix: "q", Cluster: "c"},
		"empty token": {Prefix: "q..r", Cluster: "c", Self: peerOf("n")},
	} {
		if _, err := natsrpc.New(a.conn, c); err == nil {
			t.Errorf("%s: %+v was taken", name, c)
		}
	}
	two, err := natsrpc.New(a.conn, natsrpc.Config{Prefix: "my.quorate", Cluster: "c", Self: peerOf("n")})
	if err != nil {
		t.Fatal(err)
	}
	if err := two.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// One sender's appends, pings and votes are under way at once; each finds its own answer.
func TestManyCallsAtOnce(t *testing.T) {
	_, a, b := pair(t)
	const n = 2000
	var wrong, open sync.Map
	var group sync.WaitGroup
	group.Add(n)
	for i := range n {
		open.Store(i, true)
		a.Call(b.peer, &raft.VoteRequest{Term: uint64(i + 1), Candidate: a.peer}, patient, func(answer transport.Answer) {
			defer group.Done()
			open.Delete(i)
			if resp, ok := answer.Response.(*raft.VoteResponse); !ok || resp.Term != uint64(i+1) {
				wrong.Store(i, answer)
			}
		})
	}
	group.Wait()
	wrong.Range(func(i, answer any) bool { t.Errorf("call %v: %+v", i, answer); return true })
	open.Range(func(i, _ any) bool { t.Errorf("call %v was answered for another", i); return true })
}
