package kv_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quorate/node/kv"
	"quorate/transport/embednats"
)

// shrink restarts the cluster's NATS server with another limit on messages.
func (c *cluster) shrink(maxPayload int) {
	c.t.Helper()
	port := c.server.Port()
	if err := c.server.Close(); err != nil {
		c.t.Fatal(err)
	}
	var err error
	if c.server, err = embednats.Start(embednats.Options{Port: port, MaxPayload: maxPayload}); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = c.server.Close() })
}

// TestAnAnswerThatNoMessageHoldsIsAnError: a value stays what it is when NATS takes smaller messages than before, but nobody can be sent it.
func TestAnAnswerThatNoMessageHoldsIsAnError(t *testing.T) {
	c := startClusterAt(t, embednats.Options{Port: -1, MaxPayload: 256 << 10}, "n1")
	ctx := within(t, 60*time.Second)
	if _, err := c.client().Put(ctx, "k", make([]byte, 100<<10)); err != nil {
		t.Fatal(err)
	}
	c.shrink(64 << 10)
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

// TestAValueThatNoMessageHoldsSpoilsNoOtherRead: reads share messages, and only that of the large value has no answer.
func TestAValueThatNoMessageHoldsSpoilsNoOtherRead(t *testing.T) {
	c := startClusterAt(t, embednats.Options{Port: -1, MaxPayload: 256 << 10}, "n1")
	ctx := within(t, 60*time.Second)
	client := c.client()
	for key, size := range map[string]int{"large": 100 << 10, "small": 5} {
		if _, err := client.Put(ctx, key, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	c.shrink(64 << 10)
	var group sync.WaitGroup
	for range 16 { // together they find all messages under way, and share the next
		for _, key := range []string{"large", "small"} {
			group.Go(func() {
				for range 20 {
					entry, err := client.Get(ctx, key)
					var refused *kv.RequestError
					switch {
					case key == "small" && (err != nil || len(entry.Value) != 5):
						t.Errorf("small: %d bytes, %v", len(entry.Value), err)
						return
					case key == "large" && (!errors.As(err, &refused) || refused.Code != "413"):
						t.Errorf("large: %d bytes, %v", len(entry.Value), err)
						return
					}
				}
			})
		}
	}
	group.Wait()
}

// TestAListGoesOnBehindAValueThatNoMessageHolds: it names the key, so that somebody can make its value smaller, and whoever makes a copy gets all others.
func TestAListGoesOnBehindAValueThatNoMessageHolds(t *testing.T) {
	c := startClusterAt(t, embednats.Options{Port: -1, MaxPayload: 256 << 10}, "n1")
	ctx := within(t, 60*time.Second)
	client := c.client()
	revisions := map[string]uint64{}
	for _, key := range []string{"a large", "b", "c large", "d large", "e", "f large"} {
		size := 5
		if strings.HasSuffix(key, "large") {
			size = 100 << 10
		}
		var err error
		if revisions[key], err = client.Put(ctx, key, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	c.shrink(64 << 10)
	for name, options := range map[string][]kv.ReadOption{"leader": nil, "any node": {kv.Local(nil)}, "one node": {kv.FromNode("n1")}} {
		var keys []string
		for entry, err := range client.List(ctx, "", false, options...) {
			keys = append(keys, entry.Key)
			var refused *kv.RequestError
			switch large := strings.HasSuffix(entry.Key, "large"); {
			case entry.Revision != revisions[entry.Key] || (err != nil) != large || (len(entry.Value) == 5) == large:
				t.Errorf("%s: %q at revision %d has %d bytes, %v", name, entry.Key, entry.Revision, len(entry.Value), err)
			case large && (!errors.As(err, &refused) || refused.Code != "413" || !strings.Contains(err.Error(), entry.Key)):
				t.Errorf("%s: %q: %v", name, entry.Key, err)
			}
		}
		if !slices.Equal(keys, slices.Sorted(maps.Keys(revisions))) {
			t.Errorf("%s: %q", name, keys)
		}
	}
	for range client.List(ctx, "", false) { // as after any error, the caller may have enough
		break
	}
}
