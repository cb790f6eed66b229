package kv_test

import (
	"net/url"
	"strconv"
	"testing"
	"time"

	"quorate/transport/embednats"
)

// TestAnAnswerThatNoMessageHoldsIsAnError: a value stays what it is when NATS takes smaller messages than before, but nobody can be sent it.
func TestAnAnswerThatNoMessageHoldsIsAnError(t *testing.T) {
	c := startClusterAt(t, embednats.Options{Port: -1, MaxPayload: 256 << 10}, "n1")
	ctx := within(t, 60*time.Second)
	if _, err := c.client().Put(ctx, "k", make([]byte, 100<<10)); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(c.server.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.server.Close(); err != nil {
		t.Fatal(err)
	}
	if c.server, err = embednats.Start(embednats.Options{Port: port, MaxPayload: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.server.Close() })
	conn := c.connect()
	for {
		reply, err := conn.RequestWithContext(ctx, "quorate.test.kv.get.k", nil)
		switch {
		case ctx.Err() != nil:
			t.Fatal("no answer")
		case err != nil: // nobody is there yet
		case reply.Header.Get("Nats-Service-Error-Code") != "413" || len(reply.Data) > 0:
			t.Fatalf("%d bytes, header %v", len(reply.Data), reply.Header)
		default:
			return
		}
	}
}
