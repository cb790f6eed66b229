package objectstore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"quorate/storage"
)

// FetchOptions say how a snapshot is fetched. The zero value works.
type FetchOptions struct {
	// Parallel is how many parts are fetched at once. Default: 3.
	Parallel int
	Retry    Retry
	// Check, if set, may refuse the snapshot, before any of it is fetched or stored.
	Check func(*Manifest) error
	// CheckWhole, if set, may refuse it when all of its parts are in the directory, before the manifest is: so what is refused is no snapshot there.
	CheckWhole func(*Manifest) error
	// Progress, if set, is told how many bytes of how many are there, as they are stored. It is called by one goroutine at a time and
	// must not block.
	Progress func(done, total int64)
}

const fetchesAtOnce = 3

// Fetch copies a snapshot into a directory, one file a part, and verifies it meanwhile. Parts that are there already are verified and
// not fetched again, so that a fetch that was broken off goes on. The manifest comes last: a directory that has it was complete. What is
// missing or damaged in the source gives a *DamagedError.
func Fetch(ctx context.Context, from Blobs, to *Directory, ref storage.SnapshotRef, options FetchOptions) error {
	if err := fetch(ctx, from, to, ref, options); err != nil {
		return fmt.Errorf("fetch snapshot %s: %w", ref.Name, err)
	}
	return nil
}

func fetch(ctx context.Context, from Blobs, to *Directory, ref storage.SnapshotRef, options FetchOptions) error {
	if options.Parallel <= 0 {
		options.Parallel = fetchesAtOnce
	}
	manifest, encoded, err := fetchManifest(ctx, from, to, ref, options.Retry)
	if err != nil {
		return err
	}
	if options.Check != nil {
		if err := options.Check(manifest); err != nil {
			return err
		}
	}
	parts := manifest.Unique()
	progress := &progress{tell: options.Progress}
	for _, p := range parts {
		progress.total += int64(p.Stored)
	}
	progress.add(0)
	// A directory that was complete once, and has lost a part, must not look complete.
	incomplete := sync.OnceValue(func() error { return to.Delete(ctx, ref.Name) })
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(options.Parallel)
	for _, p := range parts {
		group.Go(func() error {
			if groupCtx.Err() != nil {
				return context.Cause(groupCtx)
			}
			there, err := hasPart(groupCtx, to, p)
			if err == nil && !there {
				if err = incomplete(); err == nil {
					err = fetchPart(groupCtx, from, to, p, options.Retry)
				}
			}
			if err != nil {
				return err
			}
			progress.add(int64(p.Stored))
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if options.CheckWhole != nil {
		if err := options.CheckWhole(manifest); err != nil {
			return err
		}
	}
	return to.Put(ctx, ref.Name, int64(len(encoded)), bytes.NewReader(encoded))
}

func fetchManifest(ctx context.Context, from Blobs, to *Directory, ref storage.SnapshotRef, retry Retry) (*Manifest, []byte, error) {
	if m, encoded, err := open(ctx, to, ref); err == nil {
		return m, encoded, nil
	}
	return retry.open(ctx, from, ref)
}

// hasPart reports whether the directory has the part, and whole. What the disk cannot read is not there: it is fetched anew.
func hasPart(ctx context.Context, to *Directory, p Part) (bool, error) {
	err := copyPart(ctx, to, p, func(r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
	if err != nil && ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return err == nil, nil
}

func fetchPart(ctx context.Context, from Blobs, to *Directory, p Part, retry Retry) error {
	return retry.read(ctx, func() error {
		return copyPart(ctx, from, p, func(r io.Reader) error { return to.Put(ctx, p.Name(), int64(p.Stored), r) })
	})
}

// progress counts for several goroutines.
type progress struct {
	tell        func(done, total int64)
	mu          sync.Mutex // guards done, and keeps calls apart
	done, total int64
}

func (p *progress) add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	if p.tell != nil {
		p.tell(p.done, p.total)
	}
}
