package kv_test

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/pebblelog"
)

// hangingLog's writes hang while there is a channel in hang, until that is closed.
type hangingLog struct {
	storage.LogStore
	hang  atomic.Pointer[chan struct{}]
	hangs atomic.Bool
}

func (l *hangingLog) Write(w storage.Write) (storage.Commit, error) {
	if released := l.hang.Load(); released != nil {
		l.hangs.Store(true)
		<-*released
	}
	return l.LogStore.Write(w)
}

// TestAnOldLeaderWhoseDiskHangsIsSilent: it cannot learn that another one leads, and has no room for requests, of which both get each. "Busy" from it
// would come before the answer of the other one.
func TestAnOldLeaderWhoseDiskHangsIsSilent(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	c.members = []raft.NodeID{"n1", "n2", "n3"}
	logs := map[raft.NodeID]*hangingLog{}
	for _, id := range c.members {
		c.startWith(id, func(config *node.Config) {
			l, err := pebblelog.OpenLog(filepath.Join(c.dir, string(id), "log"), pebblelog.Options{Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			logs[id] = &hangingLog{LogStore: l}
			config.Log = logs[id]
		})
	}
	client, ctx := c.client(), within(t, 60*time.Second)
	first, err := client.Put(ctx, "k", []byte("0"))
	if err != nil {
		t.Fatal(err)
	}
	leader, err := client.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	old, released := raft.NodeID(leader), make(chan struct{})
	t.Cleanup(func() { close(released) }) // before the nodes stop
	logs[old].hang.Store(&released)
	submit := func() error { _, err := c.nodes[old].SubmitTagged(nil, node.Tag{}); return err }
	again(t, "the disk to hang", func() bool { return submit() != nil || logs[old].hangs.Load() })
	again(t, "the old leader to be full", func() bool {
		for err = nil; err == nil; err = submit() {
		}
		return errors.Is(err, node.ErrBusy)
	})
	again(t, "another leader", func() bool {
		for id, m := range c.nodes {
			if id != old && m.Status().Serving {
				return true
			}
		}
		return false
	})
	if !c.nodes[old].Status().Serving {
		t.Fatal("the old leader knows of the new one: nothing is tested")
	}
	conn := c.connect()
	for _, subject := range []string{"put.other", "get.k"} {
		again(t, subject+" to be answered", func() bool { // until the new leader has subscribed, only the old one gets it
			reply, err := conn.Request("quorate.test.kv."+subject, nil, time.Second)
			if err == nil && reply.Header.Get(micro.ErrorCodeHeader) == "503" {
				t.Errorf("%s: %v", subject, reply.Header)
			}
			return err == nil
		})
	}
	if _, err = client.Put(ctx, "k", []byte("1"), kv.IfRevision(first)); err != nil {
		t.Error(err)
	}
	if entry, err := client.Get(ctx, "k"); err != nil || string(entry.Value) != "1" {
		t.Errorf("%q %v", entry.Value, err)
	}
}
