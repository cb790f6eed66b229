package kv_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"quorate/node/kv"
	"quorate/node/kv/kvpb"
	"quorate/transport/embednats"
)

// TestListEndsWithErrCompacted: a list whose revision is compacted between two pages ends with ErrCompacted, at once.
func TestListEndsWithErrCompacted(t *testing.T) {
	c := startCluster(t, "n1")
	client := c.client()
	ctx := within(t, 60*time.Second)
	value := make([]byte, 300<<10) // two pages and more
	for i := range 6 {
		if _, err := client.Put(ctx, fmt.Sprintf("k%d", i), value); err != nil {
			t.Fatal(err)
		}
	}
	listing, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	began, first := time.Now(), true
	for _, err := range client.List(listing, "k", false) {
		if err != nil {
			if !errors.Is(err, kv.ErrCompacted) {
				t.Fatalf("after %v: %v, want ErrCompacted", time.Since(began), err)
			}
			return
		}
		if first {
			first = false
			if err := client.SetHistory(ctx, 1); err != nil {
				t.Fatal(err)
			}
			for range 5 {
				if _, err := client.Put(ctx, "other", nil); err != nil {
					t.Fatal(err)
				}
			}
			began = time.Now()
		}
	}
	t.Fatal("the list has all pages: nothing was tested")
}

// playLeader plays a leader on a NATS server without nodes, by what it answers to each kind of request; nil: the message is lost;
// *kv.RequestError: it refuses.
func playLeader(t *testing.T, answers map[string]func() ([]byte, error)) *kv.Client {
	t.Helper()
	c := startCluster(t)
	c.play(answers)
	return c.client()
}

// play plays one more leader there.
func (c *cluster) play(answers map[string]func() ([]byte, error)) {
	c.t.Helper()
	conn := c.connect()
	for op, answer := range answers {
		_, err := conn.Subscribe("quorate.test.kv."+op, func(m *nats.Msg) {
			b, err := answer()
			var refused *kv.RequestError
			switch { // whoever asked may have ended
			case errors.As(err, &refused):
				_ = m.RespondMsg(&nats.Msg{Header: nats.Header{micro.ErrorHeader: {refused.Description}, micro.ErrorCodeHeader: {refused.Code}}})
			case err != nil:
				c.t.Error(err)
			case b != nil:
				_ = m.Respond(b)
			}
		})
		if err != nil {
			c.t.Fatal(err)
		}
	}
	if err := conn.Flush(); err != nil {
		c.t.Fatal(err)
	}
}

// secondTime has the first message lost.
func secondTime(count *atomic.Int64, answer func() ([]byte, error)) func() ([]byte, error) {
	return func() ([]byte, error) {
		if count.Add(1) == 1 {
			return nil, nil
		}
		return answer()
	}
}

func played() *kvpb.Leader { return &kvpb.Leader{Node: "n1", Term: 1, MaxCommandBytes: 1 << 19} }

// TestALostWriteIsSentAgain: nobody answers a message, under a leader that is still there. It has a number in the session.
func TestALostWriteIsSentAgain(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	client := playLeader(t, map[string]func() ([]byte, error){
		"leader":  played().MarshalVT,
		"session": (&kvpb.SessionResponse{Session: 7}).MarshalVT,
		"batch":   secondTime(&sent, (&kvpb.BatchResponse{Ops: []*kvpb.OpOutcome{{Status: 1, Revision: 9}}, Leader: played()}).MarshalVT),
	})
	if revision, err := client.Put(within(t, 20*time.Second), "k", []byte("v")); err != nil || revision != 9 {
		t.Fatalf("revision %d, error %v; %d messages were sent", revision, err, sent.Load())
	}
}

// TestALostReadIsSentAgain likewise.
func TestALostReadIsSentAgain(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	client := playLeader(t, map[string]func() ([]byte, error){
		"leader": played().MarshalVT,
		"read": secondTime(&sent, (&kvpb.ReadResponse{
			Leader: played(), Node: "n1", Versions: []*kvpb.Version{{Key: []byte("k"), Value: []byte("v"), Revision: 3}},
		}).MarshalVT),
	})
	if _, err := client.Get(within(t, 20*time.Second), "k"); err != nil {
		t.Fatalf("%v; %d messages were sent", err, sent.Load())
	}
}

// TestWritesThatShareAMessageFitIntoASmallOne: where the NATS server takes small messages only, writes that share one must fit into it, as each does alone.
func TestWritesThatShareAMessageFitIntoASmallOne(t *testing.T) {
	c := startClusterAt(t, embednats.Options{Port: -1, MaxPayload: 64 << 10}, "n1")
	client := c.client()
	if _, err := client.Put(within(t, 30*time.Second), "alone", largeValue); err != nil {
		t.Fatal(err)
	}
	putManyAtOnce(t, client)
}

// TestWritesThatShareAMessageFitIntoASmallCommand: the NATS server takes larger messages than when the cluster was made, and the cluster does not.
func TestWritesThatShareAMessageFitIntoASmallCommand(t *testing.T) {
	c := startClusterAt(t, embednats.Options{Port: -1, MaxPayload: 64 << 10}, "n1")
	ctx := within(t, 60*time.Second)
	if _, err := c.client().Put(ctx, "k", nil); err != nil {
		t.Fatal(err)
	}
	c.nodes["n1"].stop()
	server, err := embednats.Start(embednats.Options{Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	c.server = server
	c.start("n1")
	t.Run("by a client that does not know the limit", func(t *testing.T) { putManyAtOnce(t, c.client()) })
	t.Run("by one that had an answer", func(t *testing.T) {
		client := c.client()
		if _, err := client.Put(ctx, "alone", largeValue); err != nil {
			t.Fatal(err)
		}
		putManyAtOnce(t, client)
	})
}

var largeValue = make([]byte, 8<<10)

// putManyAtOnce writes large values at once, which share messages.
func putManyAtOnce(t *testing.T, client *kv.Client) {
	t.Helper()
	ctx := within(t, 30*time.Second)
	var group sync.WaitGroup
	var failed atomic.Int64
	var one atomic.Pointer[error]
	for i := range 128 {
		group.Go(func() {
			if _, err := client.Put(ctx, fmt.Sprintf("k%d", i), largeValue); err != nil {
				failed.Add(1)
				one.Store(&err)
			}
		})
	}
	group.Wait()
	if n := failed.Load(); n > 0 {
		t.Fatalf("%d of 128 writes failed: %v", n, *one.Load())
	}
}
