package kv

import (
	"context"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"quorate/node"
	"quorate/node/kv/kvpb"
	"quorate/node/raft"
	"quorate/transport/embednats"
)

// sentTo is a request that wants its answer there.
type sentTo struct {
	micro.Request
	reply string
}

func (s sentTo) Reply() string { return s.reply }

// TestAWriteThatComesAsLeadershipEndsIsSentAway: a handler may still run when the goroutine that answers writes has ended.
func TestAWriteThatComesAsLeadershipEndsIsSentAway(t *testing.T) {
	server, err := embednats.Start(embednats.Options{Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	quiet := slog.New(slog.DiscardHandler)
	store, err := OpenStore(t.TempDir(), StoreOptions{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Start(t.Context(), node.Config{
		Cluster: "test", ID: "n1", Members: []raft.NodeID{"n1"}, Dir: t.TempDir(), URL: server.ClientURL(), Logger: quiet, ElectionTimeout: 20 * time.Second,
	}, store)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close(context.Background()) }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	status, err := n.Wait(ctx, func(s node.Status) bool { return s.Serving })
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{node: n, store: store, options: ServiceOptions{Version: "0.1.0", Logger: quiet}}
	l, err := s.lead(status)
	if err != nil {
		t.Fatal(err)
	}
	l.close()
	conn, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers, err := conn.SubscribeSync("answers")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	const writes = 20 // where it goes is a matter of chance
	for range writes {
		l.expect(writing{pending: &node.Pending{}, request: sentTo{reply: "answers"}, again: true}) // never decided
	}
	for i := range writes {
		m, err := answers.NextMsg(5 * time.Second)
		if err != nil {
			t.Fatalf("%d of %d writes were sent away: %v", i, writes, err)
		}
		if code := m.Header.Get(micro.ErrorCodeHeader); code != codeMoved {
			t.Errorf("code %q", code)
		}
	}
	// One that is done is told so, also over plain NATS, where it could not be sent again.
	command, err := encodeCommand([]*kvpb.Op{{Kind: opPut, Key: []byte("k")}})
	if err != nil {
		t.Fatal(err)
	}
	for range writes {
		pending, err := n.Submit(command)
		if err != nil {
			t.Fatal(err)
		}
		done, err := n.Barrier(ctx)
		if err != nil {
			t.Fatal(err)
		}
		l.expect(writing{pending: pending, request: sentTo{reply: "answers"}, single: true})
		m, err := answers.NextMsg(5 * time.Second)
		if err != nil {
			t.Fatalf("a write that is done has no answer: %v", err)
		}
		if revision, err := strconv.ParseUint(m.Header.Get(HeaderRevision), 10, 64); err != nil || revision == 0 || revision >= done.ID.Index {
			t.Errorf("answer %v to a write before %d", m.Header, done.ID.Index)
		}
	}
}
