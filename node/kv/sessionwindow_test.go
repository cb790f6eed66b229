package kv_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"quorate/node"
	"quorate/node/kv/kvpb"
	"quorate/node/raft"
	"quorate/node/sessions"
)

// TestALostMessageAndMoreOthersThanASessionKeeps: when the lost one is sent again, the table of sessions must have room for it.
func TestALostMessageAndMoreOthersThanASessionKeeps(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex // guards what follows
	table, index := sessions.New(), uint64(0)
	entry := func(kind raft.EntryKind) *raft.Entry {
		index++
		return &raft.Entry{ID: raft.LogID{Term: 1, Index: index}, Kind: kind, Time: time.Now().UnixNano()}
	}
	c := startCluster(t)
	c.play(map[string]func() ([]byte, error){
		"leader": played().MarshalVT,
		"session": func() ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			e := entry(raft.EntrySession)
			e.Data = sessions.Registration(time.Hour)
			table.Register(e)
			return (&kvpb.SessionResponse{Session: e.ID.Index}).MarshalVT()
		},
	})
	var lost, many atomic.Bool // whether the message was lost, and whether there were too many others
	conn := c.connect()
	if _, err := conn.Subscribe("quorate.test.kv.batch", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		var r kvpb.BatchRequest
		if err := r.UnmarshalVT(m.Data); err != nil {
			t.Error(err)
		}
		if string(r.Ops[0].Key) == "lost" && lost.CompareAndSwap(false, true) {
			return
		}
		e := entry(raft.EntryCommand)
		e.Session, e.Sequence, e.LowWater = r.Session, r.Sequence, r.LowWater
		if verdict, _ := table.Judge(e); verdict == sessions.Refused {
			_ = m.RespondMsg(&nats.Msg{Header: nats.Header{micro.ErrorHeader: {node.ErrSessionExpired.Error()}, micro.ErrorCodeHeader: {"410"}}})
			return
		}
		table.Store(e, []byte("x"))
		table.TakeRecords()
		if e.Sequence > sessions.MaxResults+8 {
			many.Store(true)
		}
		response := &kvpb.BatchResponse{Leader: played()}
		for range r.Ops {
			response.Ops = append(response.Ops, &kvpb.OpOutcome{Status: 1, Revision: e.ID.Index})
		}
		b, _ := response.MarshalVT()
		_ = m.Respond(b)
	}); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	client, ctx := c.client(), within(t, 60*time.Second)
	if _, err := client.Put(ctx, "first", nil); err != nil {
		t.Fatal(err)
	}
	var answered atomic.Bool
	var group sync.WaitGroup
	group.Go(func() {
		defer answered.Store(true)
		if _, err := client.Put(ctx, "lost", nil); err != nil {
			t.Errorf("with time left: %v", err)
		}
	})
	again(t, "the message to be lost", lost.Load)
	for i := range 3 {
		group.Go(func() {
			for !answered.Load() || !many.Load() {
				if _, err := client.Put(ctx, fmt.Sprint(i), nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}
