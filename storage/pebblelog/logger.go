package pebblelog

import (
	"context"
	"errors"
	"log/slog"

	"quorate/storage"
)

// pebbleLogger passes Pebble's log lines on. Pebble takes for granted that Fatalf ends the program; here it marks the store as
// broken, which stops the disk (see failStopFS) and the node, and the program that embeds it lives.
type pebbleLogger struct {
	logger *slog.Logger
	fault  *fault
}

func (l *pebbleLogger) Infof(format string, args ...any) { l.log(slog.LevelDebug, format, args) }

func (l *pebbleLogger) Errorf(format string, args ...any) {
	if l.fault.get() != nil {
		return // it has been said, and what Pebble meets on a stopped disk says nothing
	}
	l.log(slog.LevelError, format, args)
}

func (l *pebbleLogger) Fatalf(format string, args ...any) {
	l.fault.set(errors.New("pebble: " + storage.PebbleMessage(format, args...)))
}

func (l *pebbleLogger) log(level slog.Level, format string, args []any) {
	if l.logger.Enabled(context.Background(), level) {
		l.logger.Log(context.Background(), level, storage.PebbleMessage(format, args...), "from", "pebble")
	}
}
