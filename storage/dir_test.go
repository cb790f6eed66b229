package storage_test

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quorate/storage"
)

// TestOnlyAParentThatFailsToSyncIsAnError: one that may not be opened, or knows no sync, is none.
func TestOnlyAParentThatFailsToSyncIsAnError(t *testing.T) {
	for _, c := range []struct {
		kind errorfs.OpKind
		err  error
		want error
	}{
		{errorfs.OpOpenDir, fs.ErrPermission, nil},
		{errorfs.OpFileSync, syscall.EINVAL, nil},
		{errorfs.OpFileSync, syscall.EIO, syscall.EIO},
	} {
		disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == c.kind {
				return c.err
			}
			return nil
		}))
		if err := storage.MakeDir(disk, "data/log", 0o755); !errors.Is(err, c.want) {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}
