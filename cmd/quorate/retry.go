package main

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// retry says how long an operation that may be done twice is tried again.
type retry struct {
	// attempt bounds one attempt.
	attempt time.Duration
	// patience is how long a failing operation is tried again in all.
	patience time.Duration
}

// defaultPatience is longer than any election and than most restarts.
const defaultPatience = time.Minute

// do runs the operation until it succeeds, or fails for another reason than that the cluster cannot be reached or did not answer,
// or patience or the context ends. It must be such that doing it twice is the same as doing it once.
func (r retry) do(ctx context.Context, operation func(context.Context) error) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 10*time.Millisecond, time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		attempt, cancel := within(ctx, r.attempt)
		defer cancel()
		err := operation(attempt)
		if err != nil && (!isUnavailable(err) || ctx.Err() != nil) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(r.patience))
	return err
}
