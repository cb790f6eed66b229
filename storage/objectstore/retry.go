package objectstore

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"

	"quorate/storage"
)

// Retry says how long a store that is not available is tried again. The zero value works.
type Retry struct {
	// Patience is how long one blob is tried, from its first attempt. Default: 2 minutes. Negative: once.
	Patience time.Duration
	// Notify, if set, is told of each failed attempt that is followed by another, from several goroutines.
	Notify func(err error, pause time.Duration)
}

const (
	retryPatience = 2 * time.Minute
	retryFirst    = 50 * time.Millisecond
	retryLongest  = 5 * time.Second
	// rereads is how often something missing or damaged is read again: a replica of a bucket may lag behind, or what was read
	// may have been put anew meanwhile.
	rereads     = 2
	rereadPause = 20 * time.Millisecond
)

// do calls f until it succeeds, fails for good, patience is over or ctx ends.
func (r Retry) do(ctx context.Context, f func() error) error {
	if r.Patience < 0 {
		return f()
	}
	patience := r.Patience
	if patience == 0 {
		patience = retryPatience
	}
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = retryFirst, retryLongest
	options := []backoff.RetryOption{backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(patience)}
	if r.Notify != nil {
		options = append(options, backoff.WithNotify(r.Notify))
	}
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := f()
		if err != nil && !transient(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, options...)
	return err
}

// read is do for reading: what is missing or damaged is read again a few times.
func (r Retry) read(ctx context.Context, f func() error) error {
	for try := 0; ; try++ {
		err := r.do(ctx, f)
		var damaged *DamagedError
		if !errors.As(err, &damaged) || try == rereads || r.Patience < 0 {
			return err
		}
		select {
		case <-time.After(rereadPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func transient(err error) bool {
	var unavailable *UnavailableError
	return errors.As(err, &unavailable) && !unavailable.Lasting
}

// Open is objectstore.Open, tried again.
func (r Retry) Open(ctx context.Context, blobs Blobs, ref storage.SnapshotRef) (*Manifest, error) {
	m, _, err := r.open(ctx, blobs, ref)
	return m, err
}

func (r Retry) open(ctx context.Context, blobs Blobs, ref storage.SnapshotRef) (m *Manifest, encoded []byte, err error) {
	err = r.read(ctx, func() (err error) {
		m, encoded, err = open(ctx, blobs, ref)
		return err
	})
	return m, encoded, err
}
