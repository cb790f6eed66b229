// Package failstop has a Pebble, and the store above it, end at the first failure of their disk: nothing more reaches the disk after it, and
// the program lives on.
package failstop

import (
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"

	"quorate/storage"
)

// Open opens a Pebble whose first failure to write or sync is the last: it becomes the fault, and nothing more reaches the disk after it. So
// do flushes and compactions that fail, and what Pebble takes to be the end of the program. Pebble's log lines go to logger, until then.
// Errors are those of Pebble's Open, or the fault. It changes the options' FS, Logger and EventListener.
//
// Pebble was made for programs that end at such a failure. One that lives on would see it panic (when it begins the next write-ahead
// log, under a lock that its Close needs too), retry for ever in the background, or while it is opened, or, worst, sync its manifest a
// second time, believe it, and delete the write-ahead log that still held what the first sync lost. So Pebble is told that all went well,
// works on in ignorance, without effect, and Close finds it in order.
//
// Who asks the store must not be deceived: the store looks at the fault after it has asked Pebble for anything that shall last, or whether
// something does. The fault is set before Pebble hears of success.
func Open(dir string, options *pebble.Options, fault *Fault, logger *slog.Logger) (*pebble.DB, error) {
	options.FS = &settlingFS{&stoppingFS{FS: options.FS, fault: fault}}
	fault.guard(options, logger)
	db, err := open(dir, options)
	failure := fault.Get()
	if failure == nil {
		return db, err
	}
	if err == nil {
		_ = db.Close() // on a stopped disk it has nothing to say
	}
	return nil, failure
}

// open is pebble.Open, which panics at some failures of the disk and at some kinds of damage.
func open(dir string, options *pebble.Options) (db *pebble.DB, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case error:
			err = p
		default:
			err = fmt.Errorf("%w: %v", storage.ErrCorrupt, p)
		}
	}()
	return pebble.Open(dir, options)
}
