package main

import (
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/pflag"
)

// logFlags say what is logged, and how.
type logFlags struct {
	format string
	level  string
}

func (f *logFlags) add(flags *pflag.FlagSet, defaultLevel string) {
	flags.StringVar(&f.format, "log-format", "text", "form of the log on standard error: text or json")
	flags.StringVar(&f.level, "log-level", defaultLevel, "what to log: debug, info, warn or error")
}

func (f *logFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	switch strings.ToLower(f.level) {
	case "debug", "info", "warn", "error":
		if err := level.UnmarshalText([]byte(f.level)); err != nil {
			return nil, usagef("--log-level %q: %w", f.level, err)
		}
	default:
		return nil, usagef("--log-level is %q: it must be debug, info, warn or error", f.level)
	}
	options := &slog.HandlerOptions{Level: level}
	switch f.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, usagef("--log-format is %q: it must be text or json", f.format)
}
