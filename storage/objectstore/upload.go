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
	"sync"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"quorate/node/raft"
	"quorate/storage"
)

// UploadOptions say how a snapshot is uploaded. The zero value works.
type UploadOptions struct {
	// Sizes of the parts. Default: DefaultPartSizes.
	Sizes PartSizes
	// Parallel is how many parts are sent at once. Default: 2.
	Parallel int
	Retry    Retry
	// Resend, if set, says which parts are sent although they seem to be there: somebody found them damaged.
	Resend func(Digest) bool
	// MaxEntryBytes goes into the manifest.
	MaxEntryBytes uint64
}

// Stats say what an upload did.
type Stats struct {
	// Raw is the size of the streams written, Sent that of the parts sent, in bytes.
	Raw, Sent uint64
	// PartsSent were sent, PartsReused were cut and there already, PartsKept came with Keep.
	PartsSent, PartsReused, PartsKept int
}

// Upload stores one snapshot. Its streams are written one after the other by one goroutine, while parts are sent by others, for whom
// Commit and Abort wait. It holds some 40 MiB at most, and the compressor's few.
type Upload struct {
	ctx     context.Context // that of Begin: it ends the writing and the sending
	cancel  context.CancelFunc
	blobs   Blobs
	cluster raft.ClusterID
	options UploadOptions
	senders *errgroup.Group
	stock   *pages
	encoder *zstd.Encoder
	cut     *cutter

	// The writer's own.
	layers []Layer
	open   *LayerWriter
	ended  bool

	mu    sync.Mutex // guards what follows
	stats Stats
	held  map[Digest]bool
	// stored are the parts that are there: kept, found or sent.
	stored []Part
}

const (
	uploadsAtOnce = 2
	// window is how far back compression looks: more costs memory on both sides.
	window = 2 << 20
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errEnded   = errors.New("the upload has ended")
)

// Begin begins a snapshot. Whoever begins it ends it, with Commit or Abort.
func Begin(ctx context.Context, blobs Blobs, cluster raft.ClusterID, options UploadOptions) (*Upload, error) {
	if options.Sizes == (PartSizes{}) {
		options.Sizes = DefaultPartSizes
	}
	if err := options.Sizes.check(); err != nil {
		return nil, fmt.Errorf("begin a snapshot: %w", err)
	}
	if options.Parallel <= 0 {
		options.Parallel = uploadsAtOnce
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("begin a snapshot: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	senders, ctx := errgroup.WithContext(ctx)
	senders.SetLimit(options.Parallel)
	return &Upload{
		ctx: ctx, cancel: cancel, blobs: blobs, cluster: cluster, options: options, senders: senders,
		stock: newPages(options.Sizes), encoder: encoder, cut: newCutter(options.Sizes), held: make(map[Digest]bool),
	}, nil
}

// Keep takes layers of an earlier manifest into this snapshot, without sending anything. They come before all others.
func (u *Upload) Keep(layers ...Layer) {
	for _, l := range layers {
		u.layers = append(u.layers, l)
		u.mu.Lock()
		u.stored = append(u.stored, l.Parts...)
		u.stats.PartsKept += len(l.Parts)
		for _, p := range l.Parts {
			u.held[p.Digest] = true
		}
		u.mu.Unlock()
	}
}

// Holds reports whether the snapshot has the part so far: it must not be deleted, although no manifest names it yet. It may be called
// by any goroutine.
func (u *Upload) Holds(d Digest) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.held[d]
}

// Layer begins a stream: the whole state if since is zero, or what changed since that state. The one before must be closed.
func (u *Upload) Layer(since raft.LogID) *LayerWriter {
	w := &LayerWriter{upload: u, layer: Layer{Since: since}}
	switch {
	case u.ended:
		w.err = errEnded
	case u.open != nil:
		w.err = errors.New("the layer before is not closed")
	default:
		u.open = w
	}
	return w
}

// LayerWriter takes one layer's stream. It belongs to the goroutine that writes.
type LayerWriter struct {
	upload *Upload
	layer  Layer
	part   *partWriter // nil between parts
	err    error
	closed bool
}

// partWriter compresses one part.
type partWriter struct {
	part   Part
	buffer *buffer
	digest hash.Hash
}

// Write implements io.Writer. It blocks while parts are on their way and there is no room for more, and returns the error of a part that
// could not be stored.
func (w *LayerWriter) Write(p []byte) (int, error) {
	u, written := w.upload, 0
	for written < len(p) && w.err == nil {
		if w.closed {
			w.err = errors.New("the layer is closed")
			break
		}
		if u.ctx.Err() != nil {
			w.err = context.Cause(u.ctx)
			break
		}
		n, cut := u.cut.next(p[written:])
		w.err = w.add(p[written : written+n])
		if w.err == nil && cut {
			w.err = w.finishPart()
		}
		written += n
	}
	if w.err != nil {
		return written, fmt.Errorf("write a snapshot: %w", w.err)
	}
	return written, nil
}

func (w *LayerWriter) add(p []byte) error {
	u := w.upload
	if w.part == nil {
		w.part = &partWriter{buffer: &buffer{ctx: u.ctx, stock: u.stock}, digest: sha256.New()}
		u.encoder.Reset(io.MultiWriter(w.part.buffer, w.part.digest))
	}
	w.part.part.Raw += uint64(len(p))
	w.part.part.Content = crc32.Update(w.part.part.Content, castagnoli, p)
	_, err := u.encoder.Write(p)
	return err
}

func (w *LayerWriter) finishPart() error {
	u, done := w.upload, w.part
	w.part = nil
	if err := u.encoder.Close(); err != nil {
		return err
	}
	done.part.Stored = uint64(done.buffer.size)
	done.digest.Sum(done.part.Digest[:0])
	w.layer.Parts = append(w.layer.Parts, done.part)
	w.layer.Raw += done.part.Raw

	u.mu.Lock()
	known := u.held[done.part.Digest]
	u.held[done.part.Digest] = true
	u.stats.Raw += done.part.Raw
	if known {
		u.stats.PartsReused++
	}
	u.mu.Unlock()
	if known {
		done.buffer.release()
		return nil
	}
	u.senders.Go(func() error {
		defer done.buffer.release()
		return u.send(done)
	})
	return nil
}

// Close ends the stream. Its parts may still be on their way: Commit waits for them.
func (w *LayerWriter) Close() error {
	if w.closed {
		return nil
	}
	if err := w.end(); err != nil {
		return err
	}
	w.upload.layers = append(w.upload.layers, w.layer)
	return nil
}

// end ends the last part.
func (w *LayerWriter) end() error {
	w.closed = true
	u := w.upload
	if u.open == w {
		u.open = nil
	}
	if w.err == nil && w.part != nil {
		w.err = w.finishPart()
	}
	u.cut = newCutter(u.options.Sizes)
	if w.err != nil {
		u.cancel() // half a layer is no snapshot
		return fmt.Errorf("write a snapshot: %w", w.err)
	}
	return nil
}

// send stores a part, unless it is there.
func (u *Upload) send(p *partWriter) error {
	name, reused := p.part.Name(), false
	err := u.options.Retry.do(u.ctx, func() error {
		if u.options.Resend == nil || !u.options.Resend(p.part.Digest) {
			info, err := u.blobs.Stat(u.ctx, name)
			if err == nil && info.Size == p.buffer.size {
				reused = true
				return nil
			}
			if err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
		}
		return u.blobs.Put(u.ctx, name, p.buffer.size, p.buffer.reader())
	})
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if reused {
		u.stats.PartsReused++
	} else {
		u.stats.PartsSent++
		u.stats.Sent += p.part.Stored
	}
	u.stored = append(u.stored, p.part)
	return nil
}

// Commit stores the records of meta and waits for all parts, and then stores the manifest. Layers follow each other and end at meta.Last. A part that is not
// there any more gives a *DamagedError, and no manifest. The upload has ended after it, also with an error.
func (u *Upload) Commit(ctx context.Context, meta storage.SnapshotMeta) (storage.SnapshotRef, Stats, error) {
	ref, err := u.commit(ctx, meta)
	u.Abort()
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil {
		return storage.SnapshotRef{}, u.stats, fmt.Errorf("commit a snapshot: %w", err)
	}
	return ref, u.stats, nil
}

func (u *Upload) commit(ctx context.Context, meta storage.SnapshotMeta) (storage.SnapshotRef, error) {
	if u.ended {
		return storage.SnapshotRef{}, errEnded
	}
	if u.open != nil {
		return storage.SnapshotRef{}, errors.New("a layer is not closed")
	}
	records, err := u.writeRecords(meta.System)
	if err != nil {
		return storage.SnapshotRef{}, err
	}
	if len(records) > 0 {
		meta.System = nil
	}
	failed := context.Cause(u.ctx)
	if err := u.senders.Wait(); err != nil {
		return storage.SnapshotRef{}, err
	}
	if failed != nil {
		return storage.SnapshotRef{}, failed
	}
	for i := range u.layers {
		upto := meta.Last
		if i+1 < len(u.layers) {
			upto = u.layers[i+1].Since
		}
		if u.layers[i].Upto == (raft.LogID{}) { // a kept one has it
			u.layers[i].Upto = upto
		}
	}
	manifest := &Manifest{Cluster: u.cluster, Meta: meta, Records: records, Layers: u.layers, MaxEntryBytes: u.options.MaxEntryBytes}
	encoded, err := EncodeManifest(manifest)
	if err != nil {
		return storage.SnapshotRef{}, err
	}
	if err := u.checkStored(ctx); err != nil {
		return storage.SnapshotRef{}, err
	}
	ref := manifest.reference(encoded)
	return ref, u.options.Retry.do(ctx, func() error {
		return u.blobs.Put(ctx, ref.Name, int64(len(encoded)), bytes.NewReader(encoded))
	})
}

// checkStored looks whether the parts are still there: another node may have swept meanwhile, which leads, or took itself for the leader. A part that
// was sent long ago is no more to it than one that a broken build has left. The senders have ended.
func (u *Upload) checkStored(ctx context.Context) error {
	if len(u.stored) == 0 {
		return nil
	}
	return u.options.Retry.read(ctx, func() error {
		blobs, err := u.blobs.List(ctx)
		if err != nil {
			return err
		}
		sizes := make(map[string]int64, len(blobs))
		for _, b := range blobs {
			sizes[b.Name] = b.Size
		}
		for _, p := range u.stored {
			if size, ok := sizes[p.Name()]; !ok {
				return &DamagedError{Part: p.Name(), Reason: "it was there, and has been removed meanwhile", Err: ErrNotFound}
			} else if size != int64(p.Stored) {
				return &DamagedError{Part: p.Name(), Reason: fmt.Sprintf("it has %d bytes, not %d", size, p.Stored)}
			}
		}
		return nil
	})
}

// Abort ends the upload and waits for its goroutines. Parts that were stored stay, for the next attempt; Sweep deletes them some day.
// After Commit it does nothing.
func (u *Upload) Abort() {
	if u.ended {
		return
	}
	u.ended = true
	u.cancel()
	_ = u.senders.Wait()
	// Reset, not Close: a part that was broken off must not be finished.
	u.encoder.Reset(nil)
}
