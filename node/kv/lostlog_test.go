package kv

import (
	"strings"
	"testing"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/pebblelog"
)

// TestAStateWithoutItsLogIsRefused: the log was lost, or a restore was cut off. The state of nobody knows which cluster must not be that of a node
// that joins one, and the directory stays as it is, so that the restore can be run again.
func TestAStateWithoutItsLogIsRefused(t *testing.T) {
	survivor, disk := halfInstalled(t, 8, raft.LogID{Term: 1, Index: 5})
	survivor.Dir = t.TempDir()
	n, err := node.Start(t.Context(), node.Config{
		Cluster: "test", ID: survivor.ID, Dir: survivor.Dir, URL: "nats://127.0.0.1:1", Logger: survivor.Logger, Join: true,
	}, openStore(t, disk))
	if err == nil {
		_ = n.Close(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "no log") {
		t.Errorf("started: %v", err)
	}
	log, err := pebblelog.OpenLog(survivor.Dir, pebblelog.Options{Logger: survivor.Logger})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if id, ok := log.Identity(); ok {
		t.Errorf("the directory is now that of %+v", id)
	}
}
