package kv

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quorate/node"
	"quorate/node/raft"
)

// Pebble tries a flush that failed again for ever, and waits for it when it is closed.
func TestAFlushThatFailsIsTheEndAndIsSaidOnce(t *testing.T) {
	refused := errors.New("no space left")
	var full atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return refused
		}
		return nil
	}))
	var log bytes.Buffer
	s, err := OpenStore("state", StoreOptions{FS: fs, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	apply := func(index uint64) error {
		id := raft.LogID{Term: 1, Index: index}
		_, err := s.Apply(node.Batch{Commands: []node.Command{{ID: id, Data: encodeOps(t, []op{{put: true, key: "k", value: "v"}})}}, Last: id})
		return err
	}
	if err := apply(1); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	if err := s.Sync(t.Context()); !errors.Is(err, refused) {
		t.Errorf("sync on a full disk: %v", err)
	}
	if err := apply(2); !errors.Is(err, refused) {
		t.Errorf("apply after it: %v", err)
	}
	if err := s.Close(); !errors.Is(err, refused) {
		t.Errorf("close after it: %v", err)
	}
	if said := log.String(); !strings.Contains(said, "the state has failed") || strings.Count(said, "\n") > 4 {
		t.Errorf("said:\n%s", said)
	}
}
