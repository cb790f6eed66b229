package objectstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"quorate/storage"
)

// Open reads a manifest and verifies it against its reference. One that is missing or damaged gives a *DamagedError; one of a newer version an error
// that wraps storage.ErrNewer.
func Open(ctx context.Context, blobs Blobs, ref storage.SnapshotRef) (*Manifest, error) {
	m, _, err := open(ctx, blobs, ref)
	return m, err
}

// open also returns the manifest's bytes.
func open(ctx context.Context, blobs Blobs, ref storage.SnapshotRef) (*Manifest, []byte, error) {
	encoded, err := readManifest(ctx, blobs, ref.Name)
	if err != nil {
		return nil, nil, err
	}
	if sha256.Sum256(encoded) != ref.Digest {
		return nil, nil, &DamagedError{Part: ref.Name, Reason: "it does not have the digest that its reference says"}
	}
	m, err := DecodeManifest(encoded)
	if err != nil {
		return nil, nil, unread(ref.Name, err)
	}
	if m.reference(encoded) != ref {
		return nil, nil, &DamagedError{Part: ref.Name, Reason: "it does not fit its reference"}
	}
	return m, encoded, nil
}

func readManifest(ctx context.Context, blobs Blobs, name string) ([]byte, error) {
	if !isManifest(name) {
		return nil, &DamagedError{Part: name, Reason: "it is not the name of a manifest"}
	}
	r, err := blobs.Get(ctx, name)
	if err != nil {
		return nil, asDamage(name, err)
	}
	encoded, err := io.ReadAll(io.LimitReader(r, maxManifestBytes+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, asDamage(name, err)
	}
	return encoded, nil
}

// asDamage turns errors into damage that say that something is not there.
func asDamage(name string, err error) error {
	switch {
	case errors.Is(err, ErrNotFound):
		return &DamagedError{Part: name, Reason: "it is missing", Err: err}
	case errors.Is(err, ErrIncomplete), errors.Is(err, io.ErrUnexpectedEOF):
		return &DamagedError{Part: name, Reason: "a piece of it is missing", Err: err}
	}
	return err
}

// unread says why a manifest that has its digest cannot be read: what is only too new is not damaged.
func unread(name string, err error) error {
	if errors.Is(err, storage.ErrNewer) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return &DamagedError{Part: name, Reason: "it cannot be read", Err: err}
}

// parseManifest decodes a manifest that is known by its name only, which has a part of its digest.
func parseManifest(name string, encoded []byte) (*Manifest, storage.SnapshotRef, error) {
	digest := sha256.Sum256(encoded)
	if !strings.HasSuffix(name, "-"+hex.EncodeToString(digest[:])[:nameDigits]) {
		return nil, storage.SnapshotRef{}, &DamagedError{Part: name, Reason: "it does not have the digest in its name"}
	}
	m, err := DecodeManifest(encoded)
	if err != nil {
		return nil, storage.SnapshotRef{}, unread(name, err)
	}
	ref := m.reference(encoded)
	if ref.Name != name {
		return nil, storage.SnapshotRef{}, &DamagedError{Part: name, Reason: "it describes " + ref.Name}
	}
	return m, ref, nil
}

// Stored is a snapshot in a store.
type Stored struct {
	Ref storage.SnapshotRef
	// When it was complete, by the store's clock.
	When time.Time
}

// List returns references to the snapshots that have a manifest, newest first. Damaged manifests are not among them; they are reported
// beside. Parts are not looked at: see Verify. One of a newer version is an error that wraps storage.ErrNewer: if it were passed over, an older
// snapshot would be taken for the newest, and it be swept away.
func List(ctx context.Context, blobs Blobs) (refs []storage.SnapshotRef, damaged []*DamagedError, err error) {
	stored, damaged, err := ListStored(ctx, blobs)
	for _, s := range stored {
		refs = append(refs, s.Ref)
	}
	return refs, damaged, err
}

// ListStored is List, with more about each.
func ListStored(ctx context.Context, blobs Blobs) (stored []Stored, damaged []*DamagedError, err error) {
	all, err := blobs.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	found, damaged, _, err := readManifests(ctx, blobs, all)
	for _, f := range found {
		stored = append(stored, f.Stored)
	}
	return stored, damaged, err
}

// foundManifest is a snapshot that a listing has, and its manifest.
type foundManifest struct {
	Stored
	manifest *Manifest
}

// manifestPatience is for how long one manifest of a listing is tried.
const manifestPatience = 10 * time.Second

// readManifests reads the manifests of a listing, and returns them newest first. Damaged are those that were read and are wrong. Those that are
// missing were deleted since; or they are there, and a replica lags behind.
func readManifests(ctx context.Context, blobs Blobs, all []BlobInfo) (found []foundManifest, damaged, missing []*DamagedError, err error) {
	for _, blob := range all {
		if !isManifest(blob.Name) {
			continue
		}
		f := foundManifest{Stored: Stored{When: blob.Modified}}
		err := Retry{Patience: manifestPatience}.read(ctx, func() error {
			encoded, err := readManifest(ctx, blobs, blob.Name)
			if err == nil {
				f.manifest, f.Ref, err = parseManifest(blob.Name, encoded)
			}
			return err
		})
		var damage *DamagedError
		switch {
		case err == nil:
			found = append(found, f)
		case errors.Is(err, ErrNotFound) && errors.As(err, &damage):
			missing = append(missing, damage)
		case errors.As(err, &damage):
			damaged = append(damaged, damage)
		default:
			return nil, nil, nil, err
		}
	}
	slices.SortFunc(found, func(a, b foundManifest) int {
		if c := b.Ref.Last.Compare(a.Ref.Last); c != 0 {
			return c
		}
		return bytes.Compare(a.Ref.Digest[:], b.Ref.Digest[:])
	})
	return found, damaged, missing, nil
}

// Newest returns the newest snapshot, or ErrNotFound. A damaged manifest is passed over.
func Newest(ctx context.Context, blobs Blobs) (storage.SnapshotRef, error) {
	refs, damaged, err := List(ctx, blobs)
	if err != nil {
		return storage.SnapshotRef{}, err
	}
	if len(refs) == 0 {
		err := fmt.Errorf("the newest snapshot: %w", ErrNotFound)
		for _, d := range damaged {
			err = errors.Join(err, d)
		}
		return storage.SnapshotRef{}, err
	}
	return refs[0], nil
}
