package kv

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node"
	"quorate/node/raft"
)

// slowRemoval is a disk on which the removal of a directory takes until it is released, as that of a large one does.
type slowRemoval struct {
	vfs.FS
	of       string
	begun    chan struct{}
	released chan struct{}
}

func (f *slowRemoval) RemoveAll(name string) error {
	if strings.HasSuffix(name, f.of) {
		close(f.begun)
		<-f.released
	}
	return f.FS.RemoveAll(name)
}

// TestNobodyWaitsForTheRemovalOfTheOldState: RaftCore installs, and peers and readers wait for it.
func TestNobodyWaitsForTheRemovalOfTheOldState(t *testing.T) {
	disk := &slowRemoval{FS: vfs.NewMem(), of: "state-1", begun: make(chan struct{}), released: make(chan struct{})}
	s, err := OpenStore("state", StoreOptions{FS: disk, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	fillStore(t, s, 1, 5)
	stream := snapshotOf(t, s)
	done := make(chan error, 1)
	go func() {
		err := s.Restore(t.Context(), node.SnapshotMeta{Last: raft.LogID{Term: 1, Index: 5}}, newReader(stream))
		if err == nil {
			_, _, err = s.Range(RangeOptions{})
		}
		done <- err
	}()
	<-disk.begun
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
		close(disk.released)
	case <-time.After(10 * time.Second):
		t.Error("the installation, or a read after it, waits for the removal")
		close(disk.released)
		<-done
	}
	closeStore(t, s) // waits for the removal
	names, err := disk.List("state")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if name == "state-1" {
			t.Error("the old state is still there")
		}
	}
}
