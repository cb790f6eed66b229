package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// inactivity bounds the time in which nothing happens, for work whose whole length nobody knows. It belongs to one goroutine.
type inactivity struct {
	timeout time.Duration
	timer   *time.Timer
	renewed time.Time
	cancel  context.CancelCauseFunc
}

// withInactivityTimeout returns a context that ends when alive was not called for the timeout, pauses left out. stop
// releases it.
func withInactivityTimeout(parent context.Context, timeout time.Duration) (context.Context, *inactivity) {
	ctx, cancel := context.WithCancelCause(parent)
	return ctx, &inactivity{
		timeout: timeout,
		cancel:  cancel,
		timer: time.AfterFunc(timeout, func() {
			cancel(fmt.Errorf("no answer within %v: %w", timeout, context.DeadlineExceeded))
		}),
	}
}

// alive says that something happened.
func (i *inactivity) alive() {
	// Renewing a timer for each of a million entries would cost more than the entries.
	if now := time.Now(); now.Sub(i.renewed) > i.timeout/16 {
		i.renewed = now
		i.timer.Reset(i.timeout)
	}
}

// pause stops the clock until alive is called: what is waited for now is not what the timeout is about.
func (i *inactivity) pause() {
	i.timer.Stop()
	i.renewed = time.Time{}
}

func (i *inactivity) stop() {
	i.timer.Stop()
	i.cancel(context.Canceled)
}

// sayWhy adds to the error of an operation the cause for which its context ended, where the error does not tell it.
func sayWhy(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err == nil || cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w (%w)", err, cause)
}
