package node

import (
	"context"
	"io"

	"golang.org/x/time/rate"

	"quorate/storage/objectstore"
)

// A builder that reads, compresses and sends as fast as it can would take processor and disk from the writes that go on beside it. So what
// it reads of the state, and what it sends, goes on at a rate, a little at a time.

// pacedStep is how much goes on at once.
const pacedStep = 64 << 10

func newPace(bytesPerSecond int) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(bytesPerSecond), pacedStep)
}

type pacedWriter struct {
	ctx  context.Context
	w    io.Writer
	pace *rate.Limiter
	// moving counts what went through.
	moving *moving
}

func (p *pacedWriter) Write(b []byte) (written int, err error) {
	for len(b) > 0 {
		step := b[:min(len(b), pacedStep)]
		if err := p.pace.WaitN(p.ctx, len(step)); err != nil {
			return written, err
		}
		n, err := p.w.Write(step)
		written += n
		p.moving.add(n)
		if err != nil {
			return written, err
		}
		b = b[len(step):]
	}
	return written, nil
}

// pacedBlobs are blobs to which things are sent at a rate.
type pacedBlobs struct {
	objectstore.Blobs
	pace   *rate.Limiter
	moving *moving
}

func (p *pacedBlobs) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	return p.Blobs.Put(ctx, name, size, &pacedReader{ctx: ctx, r: r, pace: p.pace, moving: p.moving})
}

type pacedReader struct {
	ctx    context.Context
	r      io.Reader
	pace   *rate.Limiter
	moving *moving
}

func (p *pacedReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b[:min(len(b), pacedStep)])
	if n > 0 {
		p.moving.add(n)
		if waited := p.pace.WaitN(p.ctx, n); waited != nil {
			return n, waited
		}
	}
	return n, err
}
