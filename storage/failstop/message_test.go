package failstop

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestMessagesAreOneLine(t *testing.T) {
	_, err := pebble.Open("nothing", &pebble.Options{FS: vfs.NewMem(), ErrorIfNotExists: true, ReadOnly: true})
	if err == nil {
		t.Fatal("opened")
	}
	if said := message("background: %+v", err); said != "background: "+err.Error() {
		t.Errorf("%q", said)
	}
}
