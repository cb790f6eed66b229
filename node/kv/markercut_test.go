package kv

import (
	"log/slog"
	"testing"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/storagetest"
)

// TestPowerCutWhileTheStateIsSwitched: nothing says that the removal of the old marker reaches the disk after the making of the new one. A state
// without a marker cannot be opened.
func TestPowerCutWhileTheStateIsSwitched(t *testing.T) {
	memory := storagetest.NewCrashable()
	disk := &storagetest.RemovesFirst{FS: memory, Memory: memory, Of: "marker." + markerName}
	s := openStore(t, disk)
	fillStore(t, s, 1, 5)
	if err := s.Restore(t.Context(), node.SnapshotMeta{Last: raft.LogID{Term: 1, Index: 5}}, newReader(snapshotOf(t, s))); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	if len(disk.Left) == 0 {
		t.Fatal("no marker was replaced")
	}
	for _, left := range disk.Left {
		s, err := OpenStore("state", StoreOptions{FS: left, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := s.Range(RangeOptions{}); err != nil || len(got) != 5 {
			t.Errorf("%d entries are left (%v)", len(got), err)
		}
		closeStore(t, s)
	}
}
