package natsrpc

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/transport/embednats"
)

// TestAChangeThatTheLibraryLeftOutIsNoticed: it keeps ten changes for whoever does not get to read them, and leaves out the newer ones.
func TestAChangeThatTheLibraryLeftOutIsNoticed(t *testing.T) {
	server, err := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	reconnected := make(chan struct{}, 100)
	nc, err := nats.Connect(server.ClientURL(), nats.ReconnectWait(time.Millisecond), nats.ReconnectHandler(func(*nats.Conn) { reconnected <- struct{}{} }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	l := newLiveness(nc)
	t.Cleanup(l.Close)
	l.changes <- nats.RECONNECTING // the changes come in pairs: this has the last of one left out
	for len(l.changes) < cap(l.changes) {
		if err := nc.ForceReconnect(); err != nil {
			t.Fatal(err)
		}
		<-reconnected
	}
	go l.watch()
	deadline := time.After(10 * time.Second)
	for len(l.changes) > 0 || !l.Up() {
		select {
		case <-deadline:
			t.Fatalf("a connection that is %v is taken for one that is not up", nc.Status())
		case <-time.After(time.Millisecond):
		}
	}
}
