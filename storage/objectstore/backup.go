package objectstore

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/storage"
)

// ErrNotBackup says that a file is no backup of Quorate's.
var ErrNotBackup = errors.New("this is not a backup file of Quorate")

// Save writes a snapshot as one backup file: a tar of the manifest and then the parts. It verifies what it copies; after an error the
// file is of no use.
func Save(ctx context.Context, blobs Blobs, ref storage.SnapshotRef, w io.Writer, retry Retry) error {
	if err := save(ctx, blobs, ref, w, retry); err != nil {
		return fmt.Errorf("save snapshot %s: %w", ref.Name, err)
	}
	return nil
}

func save(ctx context.Context, blobs Blobs, ref storage.SnapshotRef, w io.Writer, retry Retry) error {
	var m *Manifest
	var encoded []byte
	err := retry.read(ctx, func() (err error) {
		m, encoded, err = open(ctx, blobs, ref)
		return err
	})
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	add := func(name string, content []byte) error {
		// Without times and owners: the same snapshot makes the same file.
		err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Format: tar.FormatUSTAR})
		if err == nil {
			_, err = out.Write(content)
		}
		return err
	}
	if err := add(ref.Name, encoded); err != nil {
		return err
	}
	l := loader{blobs: blobs, retry: retry}
	defer l.close()
	for _, p := range m.Unique() {
		if err := l.load(ctx, p); err != nil {
			return err
		}
		if err := add(p.Name(), l.stored.Bytes()); err != nil {
			return err
		}
	}
	return out.Close()
}

// Load copies a backup file into a directory, and verifies it meanwhile. What is missing or damaged gives a *DamagedError, another kind
// of file ErrNotBackup. Parts that are there already are written again. r is read to the end of the backup.
func Load(ctx context.Context, r io.Reader, to *Directory) (storage.SnapshotRef, error) {
	ref, err := load(ctx, r, to)
	if err != nil {
		return storage.SnapshotRef{}, fmt.Errorf("load a backup: %w", err)
	}
	return ref, nil
}

func load(ctx context.Context, r io.Reader, to *Directory) (storage.SnapshotRef, error) {
	in := tar.NewReader(&contextReader{ctx: ctx, r: r})
	header, err := firstHeader(in)
	if err != nil {
		return storage.SnapshotRef{}, err
	}
	encoded, err := io.ReadAll(in)
	if err != nil {
		return storage.SnapshotRef{}, asDamage(header.Name, err)
	}
	m, ref, err := parseManifest(header.Name, encoded)
	if err != nil {
		return storage.SnapshotRef{}, err
	}
	for _, p := range m.Unique() {
		header, err := in.Next()
		switch {
		case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
			return storage.SnapshotRef{}, &DamagedError{Part: p.Name(), Reason: "the file ends before it"}
		case errors.Is(err, tar.ErrHeader):
			return storage.SnapshotRef{}, &DamagedError{Part: p.Name(), Reason: "the file is damaged before it", Err: err}
		case err != nil:
			return storage.SnapshotRef{}, err
		case header.Name != p.Name() || header.Typeflag != tar.TypeReg:
			return storage.SnapshotRef{}, &DamagedError{Part: p.Name(), Reason: fmt.Sprintf("%q stands in its place", header.Name)}
		}
		verified := newVerifiedReader(in, p)
		if err := to.Put(ctx, p.Name(), int64(p.Stored), verified); err != nil {
			return storage.SnapshotRef{}, asDamage(p.Name(), err)
		}
	}
	// What follows is not known; that the file goes on to its end is.
	switch header, err := in.Next(); {
	case err == nil:
		return storage.SnapshotRef{}, &DamagedError{Part: header.Name, Reason: "the manifest does not name it"}
	case err != io.EOF:
		return storage.SnapshotRef{}, &DamagedError{Part: ref.Name, Reason: "the end of the file is damaged", Err: err}
	}
	return ref, to.Put(ctx, ref.Name, int64(len(encoded)), bytes.NewReader(encoded))
}

// firstHeader returns the manifest's.
func firstHeader(in *tar.Reader) (*tar.Header, error) {
	header, err := in.Next()
	switch {
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, tar.ErrHeader):
		return nil, fmt.Errorf("%w: %w", ErrNotBackup, err)
	case err != nil:
		return nil, err
	case !isManifest(header.Name) || checkBlobName(header.Name) != nil || header.Typeflag != tar.TypeReg:
		return nil, fmt.Errorf("%w: it begins with %q", ErrNotBackup, header.Name)
	case header.Size > maxManifestBytes:
		return nil, &DamagedError{Part: header.Name, Reason: fmt.Sprintf("it has %d bytes", header.Size)}
	}
	return header, nil
}

// File is a backup file, read in place: Verify, Fetch and Reader work on it. Put and Delete return ErrReadOnly.
type File struct {
	file  vfs.File
	ref   storage.SnapshotRef
	when  time.Time
	index map[string]extent
}

type extent struct{ at, size int64 }

// OpenFile opens a backup file. Its manifest is verified, its parts are only looked for: those that a truncated file does not have are
// found missing when they are read. Another kind of file gives ErrNotBackup.
func OpenFile(files vfs.FS, path string) (*File, error) {
	file, err := files.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open a backup: %w", err)
	}
	f := &File{file: file, index: make(map[string]extent)}
	if err := f.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("open backup %s: %w", path, err), file.Close())
	}
	return f, nil
}

func (f *File) read() error {
	stat, err := f.file.Stat()
	if err != nil {
		return err
	}
	f.when = stat.ModTime()
	section := io.NewSectionReader(f.file, 0, stat.Size())
	in := tar.NewReader(section)
	header, err := firstHeader(in)
	if err != nil {
		return err
	}
	manifest := header.Name
	for err == nil {
		at, seekErr := section.Seek(0, io.SeekCurrent)
		if seekErr != nil {
			return seekErr
		}
		if _, twice := f.index[header.Name]; !twice && checkBlobName(header.Name) == nil && header.Typeflag == tar.TypeReg && header.Size <= stat.Size()-at {
			f.index[header.Name] = extent{at: at, size: header.Size}
		}
		header, err = in.Next()
	}
	if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, tar.ErrHeader) {
		return err
	}
	encoded, err := readManifest(context.Background(), f, manifest)
	if err != nil {
		return err
	}
	_, f.ref, err = parseManifest(manifest, encoded)
	return err
}

// Ref is the reference to the snapshot in the file.
func (f *File) Ref() storage.SnapshotRef { return f.ref }

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }

// Get implements Blobs.
func (f *File) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	e, ok := f.index[name]
	if !ok {
		return nil, fmt.Errorf("get %s from a backup: %w", name, ErrNotFound)
	}
	return io.NopCloser(&contextReader{ctx: ctx, r: io.NewSectionReader(f.file, e.at, e.size)}), nil
}

// Stat implements Blobs.
func (f *File) Stat(_ context.Context, name string) (BlobInfo, error) {
	e, ok := f.index[name]
	if !ok {
		return BlobInfo{}, fmt.Errorf("look for %s in a backup: %w", name, ErrNotFound)
	}
	return BlobInfo{Name: name, Size: e.size, Modified: f.when}, nil
}

// List implements Blobs.
func (f *File) List(context.Context) ([]BlobInfo, error) {
	var blobs []BlobInfo
	for name, e := range f.index {
		blobs = append(blobs, BlobInfo{Name: name, Size: e.size, Modified: f.when})
	}
	return blobs, nil
}

// Put implements Blobs.
func (f *File) Put(context.Context, string, int64, io.Reader) error {
	return fmt.Errorf("put into a backup: %w", ErrReadOnly)
}

// Delete implements Blobs.
func (f *File) Delete(context.Context, string) error {
	return fmt.Errorf("delete from a backup: %w", ErrReadOnly)
}
