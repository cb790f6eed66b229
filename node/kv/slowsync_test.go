package kv

import (
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quorate/node"
	"quorate/node/raft"
)

// TestNobodyWaitsForASyncOfTheOldState: the log is about to be purged, which makes the state durable, and a snapshot is installed meanwhile. RaftCore
// and all readers would wait for a slow disk.
func TestNobodyWaitsForASyncOfTheOldState(t *testing.T) {
	var slow atomic.Bool
	begun, released := make(chan struct{}), make(chan struct{})
	begin, release := sync.OnceFunc(func() { close(begun) }), sync.OnceFunc(func() { close(released) })
	disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if slow.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.Contains(op.Path, firstState+"/") {
			begin()
			<-released
		}
		return nil
	}))
	s, err := OpenStore("state", StoreOptions{FS: disk, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	defer release()
	fillStore(t, s, 1, 5)
	staged, err := s.Stage(t.Context(), node.SnapshotMeta{Last: raft.LogID{Term: 1, Index: 5}}, newReader(snapshotOf(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	slow.Store(true)
	synced, installed := make(chan error, 1), make(chan error, 1)
	go func() { synced <- s.Sync(t.Context()) }()
	<-begun
	go func() {
		err := staged.Install()
		if err == nil {
			_, _, err = s.Range(RangeOptions{})
		}
		installed <- err
	}()
	select {
	case err := <-installed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the installation, or a read after it, waits for the disk")
		release()
		<-installed
	}
	release()
	if err := <-synced; err != nil {
		t.Error(err)
	}
	closeStore(t, s) // after the old state's
	if err := s.Sync(t.Context()); err == nil {
		t.Error("a closed store was made durable")
	}
}
