package objectstore

import (
	"context"
	"fmt"
	"time"

	"quorate/storage"
)

// Sweep deletes the snapshots that keep does not want, and then the parts that no manifest left names, that alsoKeep does not
// want, and that were stored at least olderThan ago. keep is asked of each snapshot that can be read, the newest first. Without them, nothing is
// wanted. Sweep returns the names of what it removed, also with an error.
//
// It goes by one listing, made first: what became complete since is another node's, and stays. So does what is damaged and newer
// than all that can be read. If one that is listed is not found, nothing is deleted at all: its parts are not known.
//
// Only one node may sweep and upload at a time, and alsoKeep must know the parts of an upload or a fetch in progress (see
// Upload.Holds): an upload may have found a part there that no manifest names.
func Sweep(ctx context.Context, blobs Blobs, keep func(storage.SnapshotRef, *Manifest) bool, alsoKeep func(Digest) bool, olderThan time.Duration) ([]string, error) {
	removed, err := sweep(ctx, blobs, keep, alsoKeep, olderThan)
	if err != nil {
		return removed, fmt.Errorf("sweep snapshots: %w", err)
	}
	return removed, nil
}

func sweep(ctx context.Context, blobs Blobs, keep func(storage.SnapshotRef, *Manifest) bool, alsoKeep func(Digest) bool, olderThan time.Duration) ([]string, error) {
	all, err := blobs.List(ctx)
	if err != nil {
		return nil, err
	}
	found, damaged, missing, err := readManifests(ctx, blobs, all)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("what a listed snapshot needs is not known: %w", missing[0])
	}
	var unwanted []string
	parts := make(map[Digest]bool)
	for _, f := range found {
		if keep == nil || !keep(f.Ref, f.manifest) {
			unwanted = append(unwanted, f.Ref.Name)
			continue
		}
		for _, p := range f.manifest.Unique() {
			parts[p.Digest] = true
		}
	}
	for _, d := range damaged {
		if len(found) > 0 && d.Part < found[0].Ref.Name { // names are in the order of log ids
			unwanted = append(unwanted, d.Part)
		}
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
	for _, name := range unwanted {
		if err := remove(name); err != nil {
			return removed, err
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
