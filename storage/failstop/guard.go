package failstop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// guard has what a Pebble meets by itself become the fault: what it takes to be the end of the program, and flushes and compactions that
// fail, which it would try again for ever, without a pause. Its log lines go to logger, until then.
func (f *Fault) guard(options *pebble.Options, logger *slog.Logger) {
	options.Logger = &pebbleLogger{logger: logger, fault: f}
	options.EventListener = &pebble.EventListener{
		FlushEnd: func(info pebble.FlushInfo) {
			if info.Err != nil && info.Err.Error() != emptyFlush {
				f.Set(fmt.Errorf("flush: %w", info.Err))
			}
		},
		CompactionEnd: func(info pebble.CompactionInfo) {
			if info.Err != nil && !errors.Is(info.Err, pebble.ErrCancelledCompaction) {
				f.Set(fmt.Errorf("compact: %w", info.Err))
			}
		},
	}
}

// emptyFlush is how Pebble calls a flush that had nothing to write. That is no failure; the error has no name outside of Pebble.
const emptyFlush = "pebble: empty table"

// pebbleLogger passes Pebble's log lines on. Pebble takes for granted that Fatalf ends the program; here it is the fault, which stops the disk
// (see Open) and whoever is told of it.
type pebbleLogger struct {
	logger *slog.Logger
	fault  *Fault
}

func (l *pebbleLogger) Infof(format string, args ...any) { l.log(slog.LevelDebug, format, args) }

func (l *pebbleLogger) Errorf(format string, args ...any) {
	if l.fault.Get() != nil {
		return // it has been said, and what Pebble meets on a stopped disk says nothing
	}
	l.log(slog.LevelError, format, args)
}

func (l *pebbleLogger) Fatalf(format string, args ...any) {
	l.fault.Set(errors.New("pebble: " + message(format, args...)))
}

func (l *pebbleLogger) log(level slog.Level, format string, args []any) {
	if l.logger.Enabled(context.Background(), level) {
		l.logger.Log(context.Background(), level, message(format, args...), "from", "pebble")
	}
}

// message is a line that Pebble logs, without the stacks that its errors carry for its own developers, in the lines below.
func message(format string, args ...any) string {
	line, _, _ := strings.Cut(fmt.Sprintf(format, args...), "\n")
	return line
}
