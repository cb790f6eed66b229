package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/nats-io/nats.go/jetstream"
)

// ReadAt reads up to len(p) bytes of a blob from an offset on, and says how large the whole blob is. At its end n is less than len(p),
// without an error. A blob that is not there is ErrNotFound.
func (d *Directory) ReadAt(ctx context.Context, name string, p []byte, offset int64) (n int, size int64, err error) {
	if err := errors.Join(checkBlobName(name), ctx.Err()); err != nil {
		return 0, 0, fmt.Errorf("read a piece of a blob: %w", err)
	}
	file, err := d.files.Open(d.file(name))
	if err != nil {
		return 0, 0, fmt.Errorf("read a piece of %s in %s: %w", name, d.path, notFound(err))
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return 0, 0, fmt.Errorf("read a piece of %s in %s: %w", name, d.path, err)
	}
	if offset < 0 || offset >= info.Size() {
		return 0, info.Size(), nil
	}
	n, err = file.ReadAt(p, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, info.Size(), fmt.Errorf("read a piece of %s in %s: %w", name, d.path, err)
	}
	return n, info.Size(), nil
}

// WithoutJetStream reports whether an error says that there is no JetStream at all, for this account: nothing can be kept there until
// an operator enables it.
func WithoutJetStream(err error) bool {
	return errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount)
}
