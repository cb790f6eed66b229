package node

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestAScarceDiskIsWarnedOf(t *testing.T) {
	for _, test := range []struct {
		total, avail uint64
		warn         bool
	}{
		{100 << 30, 50 << 30, false},
		{100 << 30, 9 << 30, false}, // below a tenth, but enough for long
		{100 << 30, 3 << 30, true},
		{8 << 30, 2 << 30, false}, // a small disk with a quarter left
		{8 << 30, 700 << 20, true},
	} {
		got := scarce("/d", vfs.DiskUsage{TotalBytes: test.total, AvailBytes: test.avail})
		if (got != "") != test.warn || test.warn && !strings.Contains(got, "/d") {
			t.Errorf("%d of %d left: %q", test.avail, test.total, got)
		}
	}
}
