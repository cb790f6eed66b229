package main

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/pflag"
)

// addProgressFlag adds --progress. Without it, a person at a terminal sees progress and a file does not.
func addProgressFlag(flags *pflag.FlagSet, always *bool) {
	flags.BoolVar(always, "progress", false, "show progress on standard error even if that is no terminal")
}

// progress is a progress bar on standard error, or nothing at all. It is safe from several goroutines.
type progress struct {
	bar *progressbar.ProgressBar
	err io.Writer
}

// newProgress starts a bar of total steps (-1: nobody knows how many).
func (a *app) newProgress(always bool, total int64, bytes bool, description string) *progress {
	p := &progress{err: a.stderr}
	if !always && !isTerminal(a.stderr) {
		return p
	}
	p.bar = progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(a.stderr),
		progressbar.OptionSetDescription(description),
		progressbar.OptionShowBytes(bytes),
		progressbar.OptionShowCount(),
		progressbar.OptionShowElapsedTimeOnFinish(),
		progressbar.OptionSetPredictTime(total > 0),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionFullWidth(),
	)
	return p
}

// max sets how many steps there are, once that is known.
func (p *progress) max(steps int64) {
	if p.bar != nil {
		p.bar.ChangeMax64(steps)
	}
}

func (p *progress) add(steps int64) {
	if p.bar != nil {
		_ = p.bar.Add64(steps) // only ever cosmetic
	}
}

// say prints a line without mixing it into the bar.
func (p *progress) say(format string, args ...any) {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
	fmt.Fprintf(p.err, format+"\n", args...)
}

// end leaves the terminal at the beginning of a line.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Exit()
		fmt.Fprintln(p.err)
	}
}
