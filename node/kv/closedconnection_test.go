package kv_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"quorate/node/kv"
	"quorate/node/kv/kvpb"
)

// TestAClosedConnectionEndsWhatWaits: the NATS connection is its owner's, who may close it before the client. Nothing is sent after that.
func TestAClosedConnectionEndsWhatWaits(t *testing.T) {
	for name, options := range map[string][]kv.ClientOption{"session": nil, "id": {kv.WithMessageIDs()}, "neither": {kv.WithoutSession()}} {
		c := startCluster(t)
		c.play(map[string]func() ([]byte, error){"leader": played().MarshalVT, "session": (&kvpb.SessionResponse{Session: 7}).MarshalVT})
		taken, conn := make(chan struct{}, 1), c.connect()
		if _, err := conn.Subscribe("quorate.test.kv.batch", taker(taken)); err != nil {
			t.Fatal(err)
		}
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
		own := c.connect()
		client, err := kv.NewClient(own, "test", options...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		calls := map[string]func() error{
			"put":         func() error { _, err := client.Put(context.Background(), "k", nil); return err },
			"get":         func() error { _, err := client.Get(context.Background(), "k"); return err },
			"set history": func() error { return client.SetHistory(context.Background(), 1) },
		}
		check := func(what string, want error) {
			t.Helper()
			result := make(chan error, 1)
			go func() { result <- calls[what]() }()
			if !own.IsClosed() {
				<-taken
				own.Close()
			}
			select {
			case err := <-result:
				if !errors.Is(err, want) {
					t.Errorf("%s with %s: %v", what, name, err)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("%s with %s still waits", what, name)
			}
		}
		check("put", kv.ErrUnknownOutcome)
		for what := range calls {
			check(what, kv.ErrUnavailable)
		}
	}
}
