package storagetest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/storage/storagetest"
)

// TestThePowerIsCutWhileFilesAreLinkedAndReused: neither waits for the other for ever.
func TestThePowerIsCutWhileFilesAreLinkedAndReused(t *testing.T) {
	const rounds = 20_000
	disk := storagetest.NewCrashable()
	file, err := disk.Create("a", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		var err error
		for range rounds {
			linked := disk.Link("a", "b")
			reused, failed := disk.ReuseForWrite("b", "c", vfs.WriteCategoryUnspecified)
			if err = errors.Join(linked, failed); err != nil {
				break
			}
			if err = errors.Join(reused.Close(), disk.Remove("c")); err != nil {
				break
			}
		}
		ended <- err
	}()
	patience := time.After(30 * time.Second)
	for {
		cut := make(chan struct{})
		go func() {
			defer close(cut)
			disk.CrashClone(vfs.CrashCloneCfg{})
		}()
		select {
		case err := <-ended:
			if <-cut; err != nil {
				t.Error(err)
			}
			return
		case <-cut:
		case <-patience:
			t.Fatal("they wait for each other")
		}
	}
}
