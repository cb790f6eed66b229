package pebblelog_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/storage/pebblelog"
	"quorate/storage/storagetest"
)

// TestPowerCutInARestart cuts the power before each operation of a restart that changes the disk, and of what is not synced any part may be there:
// of names in a directory, too, some and not the others. Nothing was written, so nothing may be missing.
func TestPowerCutInARestart(t *testing.T) {
	fs := storagetest.NewCrashable()
	log := mustOpen(t, "data/log", small(fs))
	mustWrite(t, log, appendOf(t, 7, 1, 9))
	last := log.Last()
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	storagetest.PowerCuts(t, fs, 10, func(disk vfs.FS) {
		if err := mustOpen(t, "data/log", small(disk)).Close(); err != nil {
			t.Fatal(err)
		}
	}, func(left vfs.FS) error {
		after, err := pebblelog.OpenLog("data/log", small(left))
		if err != nil {
			return err
		}
		if after.Last() != last {
			err = fmt.Errorf("the log ends at %v, and at %v before", after.Last(), last)
		}
		return errors.Join(err, after.Close())
	})
}
