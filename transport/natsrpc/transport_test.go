package natsrpc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/transport"
	"quorate/transport/embednats"
	"quorate/transport/natsrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var cluster = raft.ClusterID{42}

// patient is a timeout that only a failure reaches.
const patient = 20 * time.Second

func peerOf(name raft.NodeID) raft.Peer { return raft.Peer{ID: name, Incarnation: 5} }

func nameOnly(name raft.NodeID) raft.Peer { return raft.Peer{ID: name} }

func startServer(t *testing.T, port int) *embednats.Server {
	t.Helper()
	server, err := embednats.Start(embednats.Options{Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server
}

// endpoint is one node's transport with its connection.
type endpoint struct {
	*natsrpc.Transport
	conn   *nats.Conn
	events *natsrpc.Events
	peer   raft.Peer
}

func join(t *testing.T, server *embednats.Server, name raft.NodeID, boot uint64) *endpoint {
	t.Helper()
	e := &endpoint{peer: peerOf(name), events: &natsrpc.Events{}}
	quiet := slog.New(slog.DiscardHandler)
	var err error
	e.conn, err = natsrpc.Connect(t.Context(), natsrpc.ConnectOptions{URL: server.ClientURL(), Name: string(name), Logger: quiet, Events: e.events})
	if err != nil {
		t.Fatal(err)
	}
	e.Transport, err = natsrpc.New(e.conn, natsrpc.Config{Prefix: "q", Cluster: "c", Self: e.peer, Boot: boot, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
		e.conn.Close()
	})
	return e
}

func call(t *testing.T, from *endpoint, to raft.Peer, req transport.Request, timeout time.Duration) transport.Answer {
	t.Helper()
	answers := make(chan transport.Answer, 1)
	from.Call(to, req, timeout, func(a transport.Answer) { answers <- a })
	select {
	case a := <-answers:
		return a
	case <-time.After(20 * time.Second):
		t.Fatal("done was not called")
		return transport.Answer{}
	}
}

// echo answers each kind of request.
func echo(self raft.Peer) func(transport.Incoming) {
	return func(in transport.Incoming) {
		switch req := in.Request.(type) {
		case *raft.VoteRequest:
			in.Reply(&raft.VoteResponse{From: self, Term: req.Term, Granted: true})
		case *raft.AppendRequest:
			last := req.Prev
			if n := len(req.Entries); n > 0 {
				last = req.Entries[n-1].ID
			}
			in.Reply(&raft.AppendResponse{From: self, Term: req.Term, Status: raft.AppendMatched, Matched: last})
		case *transport.HelloRequest:
			in.Reply(&transport.HelloResponse{From: self, Members: req.Members})
		case *transport.AdoptRequest:
			in.Refuse("not now")
		}
	}
}

func pair(t *testing.T) (server *embednats.Server, a, b *endpoint) {
	t.Helper()
	server = startServer(t, -1)
	a, b = join(t, server, "a", 1), join(t, server, "b", 2)
	a.SetCluster(cluster)
	b.SetCluster(cluster)
	if err := b.Listen(t.Context(), echo(b.peer)); err != nil {
		t.Fatal(err)
	}
	return server, a, b
}

func TestEachRequestIsAnswered(t *testing.T) {
	_, a, b := pair(t)
	entry := raft.Entry{ID: raft.LogID{Term: 1, Index: 1}, Kind: raft.EntryCommand, Data: []byte("x")}
	if err := storage.SealEntry(&entry); err != nil {
		t.Fatal(err)
	}
	name := raft.Peer{ID: "b"}
	for _, c := range []struct {
		to   raft.Peer
		req  transport.Request
		want string
	}{
		{b.peer, &raft.VoteRequest{Term: 7, Candidate: a.peer}, "*raft.VoteResponse"},
		{b.peer, &raft.AppendRequest{Term: 1, Leader: a.peer, Entries: []raft.Entry{entry}}, "*raft.AppendResponse"},
		{b.peer, &transport.PingRequest{}, "*transport.PingResponse"},
		{name, &transport.HelloRequest{Cluster: "c", Members: []raft.NodeID{"a", "b"}}, "*transport.HelloResponse"},
	} {
		answer := call(t, a, c.to, c.req, 5*time.Second)
		if answer.Err != nil || fmt.Sprintf("%T", answer.Response) != c.want || answer.Boot != 2 {
			t.Errorf("%T: %+v, want a %s of boot 2", c.req, answer, c.want)
		}
	}
	refusal := call(t, a, name, &transport.AdoptRequest{Genesis: storage.NewGenesis("c", []raft.Peer{a.peer}, 9)}, 5*time.Second)
	var refused *transport.RefusedError
	if !errors.As(refusal.Err, &refused) || refused.From != "b" || refused.Reason != "not now" {
		t.Errorf("refusal: %+v", refusal)
	}
}

func TestLargeMessagesArriveInOrder(t *testing.T) {
	_, a, b := pair(t)
	const n = 40
	answers := make(chan raft.LogID, n)
	var prev raft.LogID
	for i := range n {
		entry := raft.Entry{ID: raft.LogID{Term: 1, Index: uint64(i + 1)}, Kind: raft.EntryCommand, Data: make([]byte, 200<<10)}
		if err := storage.SealEntry(&entry); err != nil {
			t.Fatal(err)
		}
		req := &raft.AppendRequest{Term: 1, Leader: a.peer, Prev: prev, Entries: []raft.Entry{entry}}
		a.Call(b.peer, req, 20*time.Second, func(answer transport.Answer) {
			if answer.Err != nil {
				t.Error(answer.Err)
				answers <- raft.LogID{}
				return
			}
			answers <- answer.Response.(*raft.AppendResponse).Matched
		})
		prev = entry.ID
	}
	for i := range n {
		if got := <-answers; got.Index != uint64(i+1) {
			t.Fatalf("answer %d is for %v", i, got)
		}
	}
}

func TestUnknownNodeHasNoRespondersAtOnce(t *testing.T) {
	_, a, b := pair(t)
	for name, to := range map[string]raft.Peer{"unknown node": {ID: "nobody", Incarnation: 1}, "another incarnation": {ID: b.peer.ID, Incarnation: 6}} {
		if answer := call(t, a, to, &transport.PingRequest{}, time.Minute); !errors.Is(answer.Err, transport.ErrNoResponders) {
			t.Errorf("%s: %+v", name, answer)
		}
	}
	b.conn.Close() // as when its process dies
	deadline := time.Now().Add(10 * time.Second)
	for {
		if answer := call(t, a, b.peer, &transport.PingRequest{}, time.Second); errors.Is(answer.Err, transport.ErrNoResponders) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a closed node still has responders")
		}
	}
}

func TestSilenceIsATimeout(t *testing.T) {
	server := startServer(t, -1)
	a, b := join(t, server, "a", 1), join(t, server, "b", 2)
	a.SetCluster(cluster)
	b.SetCluster(cluster)
	if err := b.Listen(t.Context(), func(transport.Incoming) {}); err != nil {
		t.Fatal(err)
	}
	if answer := call(t, a, b.peer, &raft.VoteRequest{Term: 1, Candidate: a.peer}, 50*time.Millisecond); !errors.Is(answer.Err, transport.ErrTimeout) {
		t.Fatalf("got %+v", answer)
	}
}

func TestMessagesThatDoNotBelongAreRefusedAndCounted(t *testing.T) {
	_, a, b := pair(t)
	a.SetCluster(raft.ClusterID{43})
	answer := call(t, a, b.peer, &raft.VoteRequest{Term: 1, Candidate: a.peer}, 5*time.Second)
	var refused *transport.RefusedError
	if !errors.As(answer.Err, &refused) || refused.Reason != transport.ReasonCluster {
		t.Errorf("another cluster: %+v", answer)
	}
	reply, err := a.conn.Request("q.c.raft.b.append."+b.peer.Incarnation.String(), []byte("garbage"), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, message, err := transport.Decode(reply.Data); err != nil || message.(*transport.Refusal).Reason != transport.ReasonMalformed {
		t.Errorf("garbage was answered with %v %v", message, err)
	}
	entry := raft.Entry{ID: raft.LogID{Term: 1, Index: 1}, Kind: raft.EntryCommand, Data: []byte("xyz")}
	if err := storage.SealEntry(&entry); err != nil {
		t.Fatal(err)
	}
	entry.Raw[len(entry.Raw)/2] ^= 4
	a.SetCluster(cluster)
	answer = call(t, a, b.peer, &raft.AppendRequest{Term: 1, Leader: a.peer, Entries: []raft.Entry{entry}}, 5*time.Second)
	if !errors.As(answer.Err, &refused) || refused.Reason != transport.ReasonEntry {
		t.Errorf("damaged entry: %+v", answer)
	}
	counts := b.Refused()
	for _, reason := range []string{transport.ReasonCluster, transport.ReasonMalformed, transport.ReasonEntry} {
		if counts[reason] != 1 {
			t.Errorf("%q was counted %d times: %v", reason, counts[reason], counts)
		}
	}
}

func TestRaftWaitsForTheGenesis(t *testing.T) {
	server := startServer(t, -1)
	a, b := join(t, server, "a", 1), join(t, server, "b", 2)
	a.SetCluster(cluster)
	if err := b.Listen(t.Context(), echo(b.peer)); err != nil {
		t.Fatal(err)
	}
	answer := call(t, a, b.peer, &raft.VoteRequest{Term: 1, Candidate: a.peer}, 5*time.Second)
	var refused *transport.RefusedError
	if !errors.As(answer.Err, &refused) || refused.Reason != transport.ReasonNoCluster {
		t.Fatalf("got %+v", answer)
	}
	if answer := call(t, a, raft.Peer{ID: "b"}, &transport.HelloRequest{}, 5*time.Second); answer.Err != nil {
		t.Fatalf("hello before the genesis: %v", answer.Err)
	}
}

func TestASecondProcessUnderOneNameIsRefused(t *testing.T) {
	server, _, _ := pair(t)
	twin := join(t, server, "b", 3)
	err := twin.Listen(t.Context(), echo(twin.peer))
	var duplicate *natsrpc.DuplicateError
	if !errors.As(err, &duplicate) || duplicate.Boot != 2 || !strings.Contains(err.Error(), "runs already") {
		t.Fatalf("got %v", err)
	}
}

func TestLostConnectionComesBack(t *testing.T) {
	server, a, b := pair(t)
	port := server.Port()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the loss to be seen", func() bool { return !a.Connected() && a.events.Disconnects.Load() > 0 })
	if answer := call(t, a, b.peer, &transport.PingRequest{}, time.Second); !errors.Is(answer.Err, transport.ErrDisconnected) {
		t.Fatalf("without a connection: %+v", answer)
	}
	startServer(t, port)
	waitFor(t, "an answer again", func() bool {
		return call(t, a, b.peer, &transport.PingRequest{}, time.Second).Err == nil
	})
	if a.events.Reconnects.Load() == 0 {
		t.Error("the reconnect was not counted")
	}
}

func TestCloseAnswersWhatWaits(t *testing.T) {
	server := startServer(t, -1)
	a, b := join(t, server, "a", 1), join(t, server, "b", 2)
	a.SetCluster(cluster)
	b.SetCluster(cluster)
	if err := b.Listen(t.Context(), func(transport.Incoming) {}); err != nil {
		t.Fatal(err)
	}
	answers := make(chan transport.Answer, 1)
	a.Call(b.peer, &raft.VoteRequest{Term: 1, Candidate: a.peer}, time.Hour, func(answer transport.Answer) { answers <- answer })
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if answer := <-answers; !errors.Is(answer.Err, transport.ErrClosed) {
		t.Fatalf("got %+v", answer)
	}
	if answer := call(t, a, b.peer, &transport.PingRequest{}, time.Second); !errors.Is(answer.Err, transport.ErrClosed) {
		t.Fatalf("after close: %+v", answer)
	}
}

func TestUnreachableNATSIsTriedUntilTheContextEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := natsrpc.Connect(ctx, natsrpc.ConnectOptions{URL: "nats://user:secret@127.0.0.1:1", Logger: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "secret") {
		t.Fatalf("got %v", err)
	}
}

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}
