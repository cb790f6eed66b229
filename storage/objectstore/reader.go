package objectstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Reader returns the streams of all layers, one after the other. Each part is verified before any of it is returned; what is missing
// or damaged gives a *DamagedError. It holds one part at a time. Reading ends with ctx.
func Reader(ctx context.Context, blobs Blobs, m *Manifest, retry Retry) io.ReadCloser {
	var parts []Part
	for _, l := range m.Layers {
		parts = append(parts, l.Parts...)
	}
	return &partsReader{ctx: ctx, parts: parts, loader: loader{blobs: blobs, retry: retry}}
}

// LayerReader is Reader for the stream of one layer.
func LayerReader(ctx context.Context, blobs Blobs, l *Layer, retry Retry) io.ReadCloser {
	return &partsReader{ctx: ctx, parts: l.Parts, loader: loader{blobs: blobs, retry: retry}}
}

type partsReader struct {
	ctx    context.Context
	parts  []Part // not yet begun
	loader loader
	inside bool // a part is being read
	err    error
}

// Read implements io.Reader.
func (r *partsReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.err == nil {
		if !r.inside {
			if len(r.parts) == 0 {
				r.err = io.EOF
				break
			}
			if r.err = r.loader.load(r.ctx, r.parts[0]); r.err != nil {
				break
			}
			r.parts, r.inside = r.parts[1:], true
		}
		n, err := r.loader.Read(p)
		if err == io.EOF {
			r.inside = false
		} else if err != nil {
			r.err = err
		}
		if n > 0 {
			return n, nil
		}
	}
	if r.err != io.EOF {
		return 0, fmt.Errorf("read a snapshot: %w", r.err)
	}
	return 0, io.EOF
}

// Close implements io.Closer.
func (r *partsReader) Close() error {
	r.err = errors.New("read after close")
	r.loader.close()
	return nil
}

// loader reads part after part into the same memory. It belongs to one goroutine.
type loader struct {
	blobs   Blobs
	retry   Retry
	stored  bytes.Buffer
	decoder *zstd.Decoder
	part    Part
	raw     uint64
	content uint32
}

// load reads and verifies a part as it is stored. Then Read gives its content.
func (l *loader) load(ctx context.Context, p Part) error {
	l.part, l.raw, l.content = p, 0, 0
	err := l.retry.read(ctx, func() error {
		l.stored.Reset()
		return copyPart(ctx, l.blobs, p, func(r io.Reader) error {
			l.stored.Grow(int(p.Stored) + bytes.MinRead)
			_, err := l.stored.ReadFrom(r)
			return err
		})
	})
	if err != nil {
		return err
	}
	if l.decoder == nil {
		// The encoder's window is smaller; the rest is for those of later versions.
		l.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(4*window), zstd.WithDecoderMaxMemory(2*maxPartRaw))
		if err != nil {
			return err
		}
	}
	if err := l.decoder.Reset(bytes.NewReader(l.stored.Bytes())); err != nil {
		return &DamagedError{Part: p.Name(), Reason: "it cannot be decompressed", Err: err}
	}
	return nil
}

// Read returns the part's content, and io.EOF only when it was right.
func (l *loader) Read(p []byte) (int, error) {
	n, err := l.decoder.Read(p)
	l.raw += uint64(n)
	l.content = crc32.Update(l.content, castagnoli, p[:n])
	switch {
	case l.raw > l.part.Raw, err == io.EOF && l.raw != l.part.Raw:
		return 0, &DamagedError{Part: l.part.Name(), Reason: fmt.Sprintf("its content does not have the %d bytes that it should", l.part.Raw)}
	case err == io.EOF && l.content != l.part.Content:
		return n, &DamagedError{Part: l.part.Name(), Reason: "its content does not have the checksum that it should"}
	case err != nil && err != io.EOF:
		return n, &DamagedError{Part: l.part.Name(), Reason: "it cannot be decompressed", Err: err}
	}
	return n, err
}

func (l *loader) close() {
	if l.decoder != nil {
		l.decoder.Close()
	}
	l.stored = bytes.Buffer{}
}

// copyPart passes a part as it is stored to a function, whose reader fails at the end if the part is not what it should be.
func copyPart(ctx context.Context, blobs Blobs, p Part, to func(io.Reader) error) error {
	r, err := blobs.Get(ctx, p.Name())
	if err != nil {
		return asDamage(p.Name(), err)
	}
	err = to(newVerifiedReader(r, p))
	return asDamage(p.Name(), errors.Join(err, r.Close()))
}

// verifiedReader reads a part as it is stored. Instead of io.EOF it returns a *DamagedError when the part is not what it should be.
type verifiedReader struct {
	r      io.Reader
	part   Part
	digest hash.Hash
	size   uint64
}

func newVerifiedReader(r io.Reader, p Part) *verifiedReader {
	return &verifiedReader{r: r, part: p, digest: sha256.New()}
}

// Read implements io.Reader.
func (r *verifiedReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.digest.Write(p[:n])
	r.size += uint64(n)
	switch {
	case r.size > r.part.Stored, err == io.EOF && r.size < r.part.Stored:
		return n, &DamagedError{Part: r.part.Name(), Reason: fmt.Sprintf("it does not have the %d bytes that it should", r.part.Stored)}
	case err == io.EOF && Digest(r.digest.Sum(nil)) != r.part.Digest:
		return n, &DamagedError{Part: r.part.Name(), Reason: "it does not have the digest in its name"}
	}
	return n, err
}
