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

// TestALostMessageIsSentAgain: a message of writes that nobody answers, under a leader that is still there, is sent again: it has a number in the session.
func TestALostMessageIsSentAgain(t *testing.T) {
	c := startCluster(t) // a NATS server only
	conn := c.connect()
	answer := func(subject string, f func(m *nats.Msg) interface{ MarshalVT() ([]byte, error) }) {
		_, err := conn.Subscribe("quorate.test.kv."+subject, func(m *nats.Msg) {
			if response := f(m); response != nil {
				b, _ := response.MarshalVT()
				_ = m.Respond(b)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	leader := &kvpb.Leader{Node: "n1", Term: 1, MaxCommandBytes: 1 << 19}
	answer("leader", func(*nats.Msg) interface{ MarshalVT() ([]byte, error) } { return leader })
	answer("session", func(*nats.Msg) interface{ MarshalVT() ([]byte, error) } { return &kvpb.SessionResponse{Session: 7} })
	var batches atomic.Int64
	answer("batch", func(m *nats.Msg) interface{ MarshalVT() ([]byte, error) } {
		if batches.Add(1) == 1 {
			return nil // lost: NATS is at-most-once
		}
		return &kvpb.BatchResponse{Ops: []*kvpb.OpOutcome{{Status: 1, Revision: 9}}, Leader: leader}
	})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	client := c.client()
	revision, err := client.Put(within(t, 10*time.Second), "k", []byte("v"))
	if err != nil || revision != 9 {
		t.Fatalf("revision %d, error %v; %d messages were sent", revision, err, batches.Load())
	}
}

// TestWritesThatShareAMessageFitIntoASmallOne: where the NATS server takes small messages only, writes that share one must fit into it, as each does alone.
func TestWritesThatShareAMessageFitIntoASmallOne(t *testing.T) {
	c := startClusterAt(t, embednats.Options{Port: -1, MaxPayload: 64 << 10}, "n1")
	client := c.client()
	ctx := within(t, 30*time.Second)
	value := make([]byte, 8<<10)
	if _, err := client.Put(ctx, "alone", value); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var failed atomic.Int64
	var one atomic.Pointer[error]
	for i := range 128 {
		group.Go(func() {
			if _, err := client.Put(ctx, fmt.Sprintf("k%d", i), value); err != nil {
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

// TestALostGetIsSentAgain: a get whose request was lost is sent again.
func TestALostGetIsSentAgain(t *testing.T) {
	c := startCluster(t) // a NATS server only
	conn := c.connect()
	leader := &kvpb.Leader{Node: "n1", Term: 1, MaxCommandBytes: 1 << 19}
	var reads atomic.Int64
	for subject, answer := range map[string]func() ([]byte, error){
		"leader": leader.MarshalVT,
		"read": func() ([]byte, error) {
			if reads.Add(1) == 1 {
				return nil, errors.New("lost")
			}
			return (&kvpb.ReadResponse{Leader: leader, Node: "n1", Versions: []*kvpb.Version{{Key: []byte("k"), Value: []byte("v"), Revision: 3}}}).MarshalVT()
		},
	} {
		_, err := conn.Subscribe("quorate.test.kv."+subject, func(m *nats.Msg) {
			if b, err := answer(); err == nil {
				_ = m.Respond(b)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.client().Get(within(t, 10*time.Second), "k"); err != nil {
		t.Fatalf("%v; %d messages were sent", err, reads.Load())
	}
}
