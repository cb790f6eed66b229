package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"quorate/storage"
)

// Verify reads a whole snapshot and checks it; of a backup file, every byte. The error has every damage: errors.As finds the first *DamagedError, Damages all.
func Verify(ctx context.Context, blobs Blobs, ref storage.SnapshotRef, retry Retry) error {
	m, err := retry.Open(ctx, blobs, ref)
	if err != nil {
		return fmt.Errorf("verify snapshot %s: %w", ref.Name, err)
	}
	l := loader{blobs: blobs, retry: retry}
	defer l.close()
	var damages []error
	for _, p := range m.Unique() {
		err := l.load(ctx, p)
		if err == nil {
			_, err = io.Copy(io.Discard, &l)
		}
		var damaged *DamagedError
		if errors.As(err, &damaged) {
			damages = append(damages, damaged)
		} else if err != nil {
			return fmt.Errorf("verify snapshot %s: %w", ref.Name, err)
		}
	}
	if f, ok := blobs.(frameChecker); ok {
		err := f.checkFrames(ctx)
		var damaged *DamagedError
		if errors.As(err, &damaged) {
			damages = append(damages, damaged)
		} else if err != nil {
			return fmt.Errorf("verify snapshot %s: %w", ref.Name, err)
		}
	}
	if len(damages) > 0 {
		return fmt.Errorf("verify snapshot %s: %w", ref.Name, errors.Join(damages...))
	}
	return nil
}

// Damages returns every *DamagedError in an error of Verify.
func Damages(err error) []*DamagedError {
	if err == nil {
		return nil
	}
	if d, ok := err.(*DamagedError); ok {
		return []*DamagedError{d}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return Damages(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []*DamagedError
		for _, inner := range e.Unwrap() {
			all = append(all, Damages(inner)...)
		}
		return all
	}
	return nil
}
