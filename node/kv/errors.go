package kv

import (
	"errors"
	"fmt"
)

// Errors of Client. Those of single operations are wrapped with what was being done.
var (
	// ErrNotFound says that there is no such key.
	ErrNotFound = errors.New("key not found")
	// ErrCompacted says that a revision is so old that its history is no longer kept.
	ErrCompacted = errors.New("history is no longer kept")
	// ErrCondition says that a condition was not met. Nothing was changed.
	ErrCondition = errors.New("condition not met")
	// ErrInvalidKey says that a key is empty or longer than MaxKeyBytes.
	ErrInvalidKey = errors.New("invalid key")
	// ErrUnavailable says that no leader got the request in time, or before the connection was closed: it had no effect.
	ErrUnavailable = errors.New("cluster is unavailable: the request had no effect")
	// ErrUnknownOutcome says that a write was sent, and no leader answered that it is done: it may or may not take effect. A leader's answer
	// that it is busy is not enough to say that there was no effect, since its successor may have got the write too.
	ErrUnknownOutcome = errors.New("outcome unknown: the write may or may not take effect")
	// ErrClosed says that the client was closed.
	ErrClosed = errors.New("client is closed")
)

// TooLargeError says that a value is larger than the cluster takes.
type TooLargeError struct {
	// Size of the value with its key, and the Limit for that, in bytes.
	Size, Limit int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("key and value have %d bytes together: the limit is %d", e.Size, e.Limit)
}

// RequestError is an answer of the service that a request is wrong.
type RequestError struct {
	Code, Description string
}

func (e *RequestError) Error() string { return "refused: " + e.Description }
