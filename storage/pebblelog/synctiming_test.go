package pebblelog_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quorate/storage"
	"quorate/storage/storagetest"
)

// TestEachSyncOfTheLogIsTimed writes until write-ahead logs are used again, and compares what was told with what reached the disk.
func TestEachSyncOfTheLogIsTimed(t *testing.T) {
	var synced, told atomic.Int64
	disk := storagetest.NewFailingDisk(func(_ int, op errorfs.Op) error {
		if storagetest.IsSync(op) && isLog(op) {
			synced.Add(1)
		}
		return nil
	})
	options := small(disk.FS())
	options.OnSync = func(took time.Duration) {
		if took < 0 {
			t.Errorf("an fsync took %v", took)
		}
		told.Add(1)
	}
	log := mustOpen(t, "log", options)
	for i := range uint64(40) { // of 64 KiB, four a write-ahead log
		mustWrite(t, log, storage.Write{Append: entries(t, 1, i+1, i+1, 64<<10)})
		if told.Load() == 0 {
			t.Fatal("a write is durable without a timed fsync")
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if told.Load() < 40 || told.Load() != synced.Load() {
		t.Errorf("%d of %d fsyncs were told", told.Load(), synced.Load())
	}
}
