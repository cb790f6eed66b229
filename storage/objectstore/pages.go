package objectstore

import (
	"bytes"
	"context"
	"io"
)

const (
	pageBytes = 128 << 10
	// maxBuffered bounds what an upload holds of parts that are compressed and not yet stored. It must be more than one largest part:
	// the one being filled can wait for those being sent, but not for itself.
	maxBuffered = 40 << 20
)

// pages is a bounded stock of buffers. Its methods may be called by several goroutines.
type pages struct {
	// slots has one element a page that may be out; nil stands for one that was not yet made.
	slots chan []byte
}

func newPages(partSizes PartSizes) *pages {
	most := min(maxBuffered, 3*partSizes.Max) // small parts need less
	n := most/pageBytes + 4
	p := &pages{slots: make(chan []byte, n)}
	for range n {
		p.slots <- nil
	}
	return p
}

// take waits for a page.
func (p *pages) take(ctx context.Context) ([]byte, error) {
	select {
	case page := <-p.slots:
		if page == nil {
			page = make([]byte, pageBytes)
		}
		return page[:0], nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// buffer is a sequence of pages that grows as it is written.
type buffer struct {
	ctx   context.Context // ends waiting for a page
	stock *pages
	held  [][]byte
	size  int64
}

// Write implements io.Writer. It blocks while no page is free.
func (b *buffer) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		last := len(b.held) - 1
		if last < 0 || len(b.held[last]) == cap(b.held[last]) {
			page, err := b.stock.take(b.ctx)
			if err != nil {
				return 0, err
			}
			b.held = append(b.held, page)
			last++
		}
		page := b.held[last]
		n := copy(page[len(page):cap(page)], rest)
		b.held[last] = page[:len(page)+n]
		rest = rest[n:]
	}
	b.size += int64(len(p))
	return len(p), nil
}

func (b *buffer) reader() io.Reader {
	readers := make([]io.Reader, len(b.held))
	for i, page := range b.held {
		readers[i] = bytes.NewReader(page)
	}
	return io.MultiReader(readers...)
}

// release gives the pages back.
func (b *buffer) release() {
	for _, page := range b.held {
		b.stock.slots <- page
	}
	b.held, b.size = nil, 0
}
