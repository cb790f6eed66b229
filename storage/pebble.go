package storage

import (
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// OpenPebble is pebble.Open, which panics at some failures of the disk and at some kinds of damage.
func OpenPebble(dir string, options *pebble.Options) (db *pebble.DB, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case error:
			err = p
		default:
			err = fmt.Errorf("%w: %v", ErrCorrupt, p)
		}
	}()
	return pebble.Open(dir, options)
}

// PebbleMessage is a line that Pebble logs, without the stacks that its errors carry for its own developers, in the lines below.
func PebbleMessage(format string, args ...any) string {
	message, _, _ := strings.Cut(fmt.Sprintf(format, args...), "\n")
	return message
}
