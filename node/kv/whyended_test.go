package kv_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"quorate/node/kv"
	"quorate/node/kv/kvpb"
)

// TestAnErrorNamesWhatEndedTheCall: its context's deadline, or that it was cancelled, or that the client was closed; none of them for another.
func TestAnErrorNamesWhatEndedTheCall(t *testing.T) {
	t.Parallel()
	all := []error{context.Canceled, context.DeadlineExceeded, kv.ErrClosed}
	ends := map[error]func(*kv.Client) (context.Context, func()){
		context.Canceled: func(*kv.Client) (context.Context, func()) {
			ctx, cancel := context.WithCancel(context.Background())
			return ctx, cancel
		},
		context.DeadlineExceeded: func(*kv.Client) (context.Context, func()) {
			return within(t, 300*time.Millisecond), func() {}
		},
		kv.ErrClosed: func(c *kv.Client) (context.Context, func()) {
			return context.Background(), func() { _ = c.Close() }
		},
	}
	calls := map[string]func(context.Context, *kv.Client) error{
		"put": func(ctx context.Context, c *kv.Client) error { _, err := c.Put(ctx, "k", nil); return err },
		"get": func(ctx context.Context, c *kv.Client) error { _, err := c.Get(ctx, "k"); return err },
		"get locally": func(ctx context.Context, c *kv.Client) error {
			_, err := c.Get(ctx, "k", kv.FromNode("n1"))
			return err
		},
		"set history": func(ctx context.Context, c *kv.Client) error { return c.SetHistory(ctx, 5) },
		"list": func(ctx context.Context, c *kv.Client) error {
			for _, err := range c.List(ctx, "", false) {
				return err
			}
			return nil
		},
	}
	for where, op := range map[string]string{"when it was sent": "batch", "while a session is registered": "session"} {
		c := startCluster(t)
		answers := map[string]func() ([]byte, error){"leader": played().MarshalVT, "session": (&kvpb.SessionResponse{Session: 7}).MarshalVT}
		delete(answers, op)
		c.play(answers)
		taken, conn := make(chan struct{}, 1), c.connect()
		for _, subject := range []string{"kv." + op, "kv.read", "kv.range", "kv.history", "node.n1.kv.read"} {
			if _, err := conn.Subscribe("quorate.test."+subject, taker(taken)); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
		for what, call := range calls {
			for want, end := range ends {
				client := c.client()
				ctx, endNow := end(client)
				result := make(chan error, 1)
				go func() { result <- call(ctx, client) }()
				select {
				case <-taken:
				case <-ctx.Done():
				case <-time.After(20 * time.Second):
					t.Fatalf("%s is not sent", what)
				}
				endNow()
				select {
				case err := <-result:
					for _, one := range all {
						if errors.Is(err, one) != (one == want) {
							t.Errorf("%s %s: %v, want %v", what, where, err, want)
							break
						}
					}
				case <-time.After(20 * time.Second):
					t.Fatalf("%s still waits", what)
				}
			}
		}
	}
}

// Whoever asks a node of his choice in vain is told that this one does not answer, and not that the cluster does not.
func TestAnErrorNamesTheNodeThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1")
	client := c.client()
	if _, err := client.Put(within(t, 30*time.Second), "k", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get(within(t, 2*time.Second), "k", kv.FromNode("n9")); err == nil || !strings.Contains(err.Error(), "node n9 does not take requests") {
		t.Errorf("%v", err)
	}
}
