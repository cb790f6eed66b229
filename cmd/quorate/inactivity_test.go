package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"quorate/node/kv"
)

func TestInactivityEndsTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, watch := withInactivityTimeout(t.Context(), time.Second)
		defer watch.stop()
		for range 100 {
			time.Sleep(900 * time.Millisecond) // of the bubble's clock
			if ctx.Err() != nil {
				t.Fatal("ended although something happened within the timeout")
			}
			watch.alive()
		}
		watch.pause()
		time.Sleep(time.Hour) // of the bubble's clock: none of the test's own time passes
		if ctx.Err() != nil {
			t.Fatal("ended during a pause")
		}
		watch.alive()
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			t.Fatalf("cause %v after the timeout", context.Cause(ctx))
		}
		err := sayWhy(ctx, ctx.Err())
		if exitStatus(t.Context(), err) != statusUnavailable {
			t.Errorf("%v has exit status %d", err, exitStatus(t.Context(), err))
		}
	})
}

func TestRetryGoesOnWhileTheClusterIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retry{attempt: time.Second, patience: time.Minute}
		failures := []error{kv.ErrUnavailable, kv.ErrUnknownOutcome, context.DeadlineExceeded}
		attempts := 0
		err := r.do(t.Context(), func(context.Context) error {
			attempts++
			if attempts <= len(failures) {
				return failures[attempts-1]
			}
			return nil
		})
		if err != nil || attempts != len(failures)+1 {
			t.Errorf("%v after %d attempts", err, attempts)
		}
	})
}

func TestRetryEndsWithPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retry{attempt: time.Second, patience: time.Minute}
		begun := time.Now()
		err := r.do(t.Context(), func(ctx context.Context) error {
			<-ctx.Done() // nobody answers
			return ctx.Err()
		})
		if took := time.Since(begun); exitStatus(t.Context(), err) != statusUnavailable || took < 50*time.Second || took > 70*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestRetryStopsAtOtherErrors(t *testing.T) {
	r := retry{attempt: time.Second, patience: time.Minute}
	attempts := 0
	err := r.do(t.Context(), func(context.Context) error {
		attempts++
		return kv.ErrInvalidKey
	})
	if !errors.Is(err, kv.ErrInvalidKey) || attempts != 1 {
		t.Errorf("%v after %d attempts", err, attempts)
	}
}

func TestRetryEndsWithTheContext(t *testing.T) {
	ctx, interrupt := context.WithCancelCause(t.Context())
	r := retry{attempt: time.Second, patience: time.Minute}
	err := r.do(ctx, func(ctx context.Context) error {
		interrupt(errInterrupted)
		return kv.ErrUnavailable
	})
	if err == nil || exitStatus(ctx, err) != statusInterrupted {
		t.Errorf("%v has exit status %d", err, exitStatus(ctx, err))
	}
}
