package pebblelog_test

import (
	"testing"

	"quorate/storage/pebblelog"
	"quorate/storage/storagetest"
)

// TestPowerCutWhileAMarkerIsReplaced: nothing says that a file's removal reaches the disk after the making of another one before it. Without any
// marker the store is not one.
func TestPowerCutWhileAMarkerIsReplaced(t *testing.T) {
	memory := storagetest.NewCrashable()
	disk := &storagetest.RemovesFirst{FS: memory, Memory: memory, Of: "marker."}
	log := mustOpen(t, "data/log", small(disk))
	mustWrite(t, log, appendOf(t, 7, 1, 9))
	last := log.Last()
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	disk.Left = nil
	if err := mustOpen(t, "data/log", small(disk)).Close(); err != nil {
		t.Fatal(err)
	}
	if len(disk.Left) == 0 {
		t.Fatal("no marker was replaced")
	}
	for _, left := range disk.Left {
		after, err := pebblelog.OpenLog("data/log", small(left))
		if err != nil {
			t.Fatal(err)
		}
		if after.Last() != last {
			t.Errorf("the log ends at %v, and at %v before", after.Last(), last)
		}
		if err := after.Close(); err != nil {
			t.Error(err)
		}
	}
}
