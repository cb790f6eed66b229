package objectstore

import (
	"context"
	"fmt"
	"time"

	"quorate/storage"
)

// Sweep deletes the manifests that are not among keep, and then the parts that no kept manifest names, that alsoKeep (which may be nil)
// does not want, and that were stored at least olderThan ago. It returns the names of what it removed, also with an error.
//
// Only one node may sweep and upload at a time, and alsoKeep must know the parts of an upload or a fetch in progress (see
// Upload.Holds): an upload may have found a part there that no manifest names. If a manifest of keep cannot be read, nothing is
// deleted at all: its parts are not known, and an older snapshot may be the last good one.
func Sweep(ctx context.Context, blobs Blobs, keep []storage.SnapshotRef, alsoKeep func(Digest) bool, olderThan time.Duration) ([]string, error) {
	removed, err := sweep(ctx, blobs, keep, alsoKeep, olderThan)
	if err != nil {
		return removed, fmt.Errorf("sweep snapshots: %w", err)
	}
	return removed, nil
}

func sweep(ctx context.Context, blobs Blobs, keep []storage.SnapshotRef, alsoKeep func(Digest) bool, olderThan time.Duration) ([]string, error) {
	manifests, parts := make(map[string]bool), make(map[Digest]bool)
	for _, ref := range keep {
		m, err := Open(ctx, blobs, ref)
		if err != nil {
			return nil, fmt.Errorf("a snapshot to be kept: %w", err)
		}
		manifests[ref.Name] = true
		for _, p := range m.Unique() {
			parts[p.Digest] = true
		}
	}
	all, err := blobs.List(ctx)
	if err != nil {
		return nil, err
	}
	var removed []string
	remove := func(name string) error {
		err := blobs.Delete(ctx, name)
		if err == nil {
			removed = append(removed, name)
		}
		return err
	}
	// All manifests go before any part: a manifest that can be seen has its parts.
	for _, b := range all {
		if isManifest(b.Name) && !manifests[b.Name] {
			if err := remove(b.Name); err != nil {
				return removed, err
			}
		}
	}
	for _, b := range all {
		digest, isPart := partDigest(b.Name)
		if !isPart || parts[digest] || alsoKeep != nil && alsoKeep(digest) || time.Since(b.Modified) < olderThan {
			continue
		}
		if err := remove(b.Name); err != nil {
			return removed, err
		}
	}
	if c, ok := blobs.(cleaner); ok {
		more, err := c.clean(ctx, olderThan)
		return append(removed, more...), err
	}
	return removed, nil
}
