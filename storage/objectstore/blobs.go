package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Blobs keeps named pieces of bytes for one cluster. Names are lower-case letters, digits and '-'. Its methods may be called by
// many goroutines at once, and end soon after their ctx does.
type Blobs interface {
	// Put stores size bytes of r under name, in place of what was there. When r has more or fewer bytes, or fails, or Put is cut
	// off, nothing is seen under the name that was not there before.
	Put(ctx context.Context, name string, size int64, r io.Reader) error
	// Get reads what is stored under name, or returns ErrNotFound. Reading ends with ctx too. Read returns an error that is
	// ErrIncomplete when a piece is missing, but only the caller's digest tells whether the bytes are right.
	Get(ctx context.Context, name string) (io.ReadCloser, error)
	// Stat says what is stored under name, or returns ErrNotFound, also when it is there only in part.
	Stat(ctx context.Context, name string) (BlobInfo, error)
	// List returns what there is, in no order.
	List(ctx context.Context) ([]BlobInfo, error)
	// Delete deletes what is stored under name. That there is nothing is no error.
	Delete(ctx context.Context, name string) error
}

// BlobInfo describes a stored blob.
type BlobInfo struct {
	Name string
	// Size in bytes.
	Size int64
	// Modified is when it was stored, by the store's clock.
	Modified time.Time
}

// cleaner is a store that leaves something behind when a Put is cut off.
type cleaner interface {
	// clean removes what Puts left behind that have not moved for olderThan, and says what.
	clean(ctx context.Context, olderThan time.Duration) ([]string, error)
}

var (
	// ErrNotFound says that there is no such blob.
	ErrNotFound = errors.New("not found")
	// ErrUnavailable says that the store could not be used: JetStream is off or full, or does not answer. Every such error is an
	// *UnavailableError.
	ErrUnavailable = errors.New("the object store is not available")
	// ErrIncomplete says that a blob is there only in part.
	ErrIncomplete = errors.New("incomplete")
	// ErrReadOnly says that nothing can be written there.
	ErrReadOnly = errors.New("read-only")
)

// UnavailableError says why the store could not be used. It is ErrUnavailable.
type UnavailableError struct {
	Err error
	// Lasting: somebody must do something first; to try again soon will not help.
	Lasting bool
}

func (e *UnavailableError) Error() string { return ErrUnavailable.Error() + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Is makes it ErrUnavailable.
func (e *UnavailableError) Is(target error) bool { return target == ErrUnavailable }

// DamagedError says that a manifest or a part is missing or is not what it was.
type DamagedError struct {
	// Part is the name of the blob.
	Part   string
	Reason string
	// Err is the cause, if there is one: ErrNotFound, for one.
	Err error
}

func (e *DamagedError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s is damaged: %s: %v", e.Part, e.Reason, e.Err)
	}
	return fmt.Sprintf("%s is damaged: %s", e.Part, e.Reason)
}

// Unwrap returns the cause.
func (e *DamagedError) Unwrap() error { return e.Err }

// maxBlobName bounds names from outside.
const maxBlobName = 160

func checkBlobName(name string) error {
	if name == "" || len(name) > maxBlobName {
		return fmt.Errorf("a blob's name of %d bytes", len(name))
	}
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return fmt.Errorf("the blob's name %q has characters other than a-z, 0-9 and '-'", name)
		}
	}
	return nil
}
