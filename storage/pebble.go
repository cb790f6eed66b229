package storage

import (
	"fmt"

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
