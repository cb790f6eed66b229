package kv_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/kv/kvpb"
	"quorate/node/raft"
)

// How much history is kept is a setting of the cluster: all members have it, also one that gets a snapshot, and after restarts.
func TestHistoryIsASettingOfTheCluster(t *testing.T) {
	t.Parallel()
	c := startStoring(t)
	c.members = []raft.NodeID{"n1", "n2", "n3"}
	c.tune = func(config *node.Config) { config.SnapshotEntries, config.KeepEntries = 1<<40, 5 }
	for _, id := range c.members {
		c.start(id)
	}
	client := c.client()
	ctx := within(t, 60*time.Second)
	if n, err := client.History(ctx); err != nil || n != kv.DefaultHistory {
		t.Fatalf("%d %v", n, err)
	}
	if err := client.SetHistory(ctx, 0); err == nil {
		t.Error("a history of nothing was taken")
	}
	for _, want := range []uint64{math.MaxUint64, 7} {
		if err := client.SetHistory(ctx, want); err != nil {
			t.Fatal(err)
		}
		if n, err := client.History(ctx); err != nil || n != want {
			t.Fatalf("%d %v, want %d", n, err, want)
		}
	}
	c.put(ctx, client, 0, 30, "v")
	id, err := c.nodes["n1"].WaitLeader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	leader := c.nodes[id]
	made, err := leader.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	again(t, "the log to be purged, as far as the state is durable", func() bool {
		purged, err := leader.Purge(ctx, made.Last.Index)
		return err == nil && purged.Index > 0
	})
	c.join("n4")
	if _, err := leader.AddLearner(ctx, "n4"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.nodes["n4"].Wait(ctx, func(s node.Status) bool { return s.Snapshot.InstalledIndex > 0 }); err != nil {
		t.Fatal(err)
	}
	revision, err := client.Put(ctx, "last", nil)
	if err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		for id, m := range c.nodes {
			if _, err := m.Wait(ctx, func(s node.Status) bool { return s.AppliedIndex >= revision }); err != nil {
				t.Fatal(err)
			}
			if n := m.store.History(); n != 7 {
				t.Errorf("%s keeps %d revisions", id, n)
			}
		}
	}
	check()
	for id, m := range c.nodes {
		m.stop()
		if id == "n4" {
			c.join(id)
		} else {
			c.start(id)
		}
	}
	check()
}

// TestSettingTheHistoryWithoutAnAnswerIsAnUnknownOutcome: it may have been done.
func TestSettingTheHistoryWithoutAnAnswerIsAnUnknownOutcome(t *testing.T) {
	set := make(chan struct{}, 1)
	c := startCluster(t)
	conn := c.connect()
	c.play(map[string]func() ([]byte, error){"leader": played().MarshalVT})
	if _, err := conn.Subscribe("quorate.test.kv.history", taker(set)); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(within(t, 20*time.Second))
	go func() { <-set; cancel() }()
	if err := c.client().SetHistory(ctx, 1); !errors.Is(err, kv.ErrUnknownOutcome) || errors.Is(err, kv.ErrUnavailable) {
		t.Error(err)
	}
	if err := startCluster(t).client().SetHistory(within(t, 100*time.Millisecond), 1); !errors.Is(err, kv.ErrUnavailable) {
		t.Errorf("without a leader: %v", err)
	}
}

// TestAListWithAShortHistoryUnderWrites: its first page is as of what the node has applied when it reads, which writes may have moved since it was
// asked.
func TestAListWithAShortHistoryUnderWrites(t *testing.T) {
	c := startCluster(t, "n1")
	client, ctx := c.client(), within(t, 60*time.Second)
	if err := client.SetHistory(ctx, 1); err != nil {
		t.Fatal(err)
	}
	writing, stop := context.WithCancel(ctx)
	conn := c.connect()
	var group sync.WaitGroup
	for w := range 64 { // over plain NATS, so that they share no entry
		group.Go(func() {
			for writing.Err() == nil {
				_, _ = conn.Request(fmt.Sprintf("quorate.test.kv.put.k%d", w), nil, time.Second)
			}
		})
	}
	defer group.Wait()
	defer stop()
	enough := time.Now().Add(20 * time.Second) // for a busy machine
	for lists := 0; lists < 1000 && (lists < 10 || time.Now().Before(enough)); lists++ {
		for _, err := range client.List(ctx, "k", true) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Permissions are by subject: whoever may write keys may not say how much history is kept.
func TestABatchDoesNotSetTheHistory(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1")
	client, ctx := c.client(), within(t, 30*time.Second)
	before, err := client.History(ctx)
	if err != nil {
		t.Fatal(err)
	}
	batch, err := (&kvpb.BatchRequest{Version: 1, Ops: []*kvpb.Op{{Kind: 3, Value: binary.BigEndian.AppendUint64(nil, before+1)}}}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	reply := request(t, c.connect(), "quorate.test.kv.batch", batch, nil)
	if reply.Header.Get(micro.ErrorCodeHeader) != "400" || !strings.Contains(reply.Header.Get(micro.ErrorHeader), "history") {
		t.Errorf("answer %v", reply.Header)
	}
	if after, err := client.History(ctx); err != nil || after != before {
		t.Errorf("history %d, before %d (%v)", after, before, err)
	}
}
