package node

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/transport/memnet"
)

// unreadableLog is a log whose entries are damaged.
type unreadableLog struct{ storage.LogReader }

func (unreadableLog) Term(uint64) (uint64, error) { return 1, nil }
func (unreadableLog) Entries([]raft.Entry, uint64, uint64, int) ([]raft.Entry, error) {
	return nil, errors.Join(errors.New("a bit is wrong"), storage.ErrCorrupt)
}

// TestALogThatCannotBeReadIsNotALineForEachHeartbeat: a worker tries it again whenever its target has answered a heartbeat.
func TestALogThatCannotBeReadIsNotALineForEachHeartbeat(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	leader, peer := raft.Peer{ID: "n1", Incarnation: 1}, raft.Peer{ID: "n2", Incarnation: 2}
	now := time.Now()
	target := raft.Target{Worker: 1, Peer: peer, Term: 1, Last: raft.LogID{Term: 1, Index: 9}, Until: now.Add(time.Hour)}
	w := &worker{
		log: unreadableLog{}, transport: memnet.New(1).Join(leader, 1, logger), logger: logger, newest: target,
		replicator: raft.NewReplicator(raft.ReplicatorConfig{MaxInFlight: 1, MaxInFlightBytes: 1 << 20, MaxMessageBytes: 1 << 20}, target, now),
	}
	entries := raft.Send{ID: 1, Prev: 7, Lo: 8, Hi: 10, MaxBytes: 1 << 20}
	lines := func() int { return bytes.Count(log.Bytes(), []byte("a bit is wrong")) }
	for i := range 100 {
		if w.send(context.Background(), now.Add(time.Duration(i)*50*time.Millisecond), entries) {
			t.Fatal("what cannot be read is sent")
		}
	}
	if n := lines(); n != 1 {
		t.Errorf("%d lines in 5 s of heartbeats", n)
	}
	w.send(context.Background(), now.Add(time.Minute), entries)
	if n := lines(); n != 2 {
		t.Errorf("%d lines, the last a minute later", n)
	}
}
