package kv

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node"
	"quorate/node/raft"
)

// TestAStateWhoseMarkerIsMissingIsRefused: the marker is an empty file, which some ways to copy a directory leave out. To begin anew would be to
// delete the state.
func TestAStateWhoseMarkerIsMissingIsRefused(t *testing.T) {
	disk := vfs.NewMem()
	s := openStore(t, disk)
	fillStore(t, s, 1, 5)
	if err := s.Restore(t.Context(), node.SnapshotMeta{Last: raft.LogID{Term: 1, Index: 5}}, newReader(snapshotOf(t, s))); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	names, err := disk.List("state")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "marker.") {
			continue
		}
		if err := disk.Remove("state/" + name); err != nil {
			t.Fatal(err)
		}
		s, err := OpenStore("state", StoreOptions{FS: disk, Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			got, _, err := s.Range(RangeOptions{})
			t.Errorf("a state of 5 entries is opened as one of %d, and nobody complains (%v)", len(got), err)
			closeStore(t, s)
		}
		file, err := disk.Create("state/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s, err = OpenStore("state", StoreOptions{FS: disk, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal("with its marker again: ", err)
	}
	defer s.Close()
	if got, _, err := s.Range(RangeOptions{}); err != nil || len(got) != 5 {
		t.Errorf("with its marker again it has %d entries (%v)", len(got), err)
	}
}
