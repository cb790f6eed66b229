package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"quorate/node"
	"quorate/node/kv"
	"quorate/storage/objectstore"
)

// The exit statuses of the binary. Scripts rely on them: they never change their meaning.
const (
	statusDone        = 0
	statusFalse       = 1
	statusUsage       = 2
	statusUnavailable = 3
	statusFailed      = 4
	// statusInterrupted is what shells use for a process that SIGINT has ended.
	statusInterrupted = 130
)

const exitStatuses = `  0    done
  1    no: key not found, condition false, or some items cannot be taken (each is named)
  2    usage: a wrong flag, argument or key, or a value over the cluster's limit
  3    the cluster is unavailable or did not answer in time; if it is not known whether a write took effect, the message says so
  4    failed otherwise, for example by the file system
  130  interrupted`

// usageError is a mistake in how the command was called.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// statusError gives an error the exit status that it shall have.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

func withStatus(status int, err error) error { return &statusError{status: status, err: err} }

// exitStatus says which status an error of a command run under ctx leads to.
func exitStatus(ctx context.Context, err error) int {
	var usage *usageError
	var given *statusError
	interrupted := errors.Is(context.Cause(ctx), errInterrupted)
	// If the error is only that the context has ended, a given status tells what was broken off, and not why.
	brokenOff := interrupted && (errors.Is(err, errInterrupted) || errors.Is(err, context.Canceled))
	switch {
	case err == nil:
		return statusDone
	case errors.As(err, &given) && !brokenOff:
		return given.status
	case errors.As(err, &usage), errors.Is(err, kv.ErrInvalidKey), isTooLarge(err):
		return statusUsage
	case errors.Is(err, kv.ErrUnknownOutcome), errors.Is(err, node.ErrUnknownOutcome): // before an interrupt: that the outcome is unknown matters more
		return statusUnavailable
	case interrupted:
		return statusInterrupted
	case errors.Is(err, kv.ErrNotFound), errors.Is(err, kv.ErrCondition):
		return statusFalse
	case isUnavailable(err):
		return statusUnavailable
	}
	return statusFailed
}

// isTooLarge reports whether an error says that a value is larger than the cluster takes.
func isTooLarge(err error) bool {
	var tooLarge *kv.TooLargeError
	return errors.As(err, &tooLarge) || errors.Is(err, nats.ErrMaxPayload)
}

// isUnavailable reports whether an error says that NATS or the cluster could not be reached, or did not answer in time.
func isUnavailable(err error) bool {
	for _, cause := range []error{
		kv.ErrUnavailable, kv.ErrUnknownOutcome, context.DeadlineExceeded,
		node.ErrUnknownOutcome, node.ErrLost, node.ErrBusy, node.ErrStopped, node.ErrNotInitialized, node.ErrNoSnapshots, objectstore.ErrUnavailable,
		nats.ErrTimeout, nats.ErrNoResponders, nats.ErrNoServers, nats.ErrConnectionClosed, nats.ErrDisconnected,
		nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded, nats.ErrStaleConnection,
	} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}
