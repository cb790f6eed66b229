package objectstore

import (
	"archive/tar"
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

// SaveOptions say how a backup is saved. The zero value works.
type SaveOptions struct {
	Retry Retry
	// Have, if set, may have some of the parts, as a backup that was broken off does: what is whole there is not read elsewhere.
	Have Blobs
	// Progress, if set, is told after each part how many bytes of how many are written, and how many of these Have had. It must not block.
	Progress func(done, total, had int64)
}

// Save writes a snapshot as one backup file: a tar of the manifest and then the parts. It verifies what it copies; after an error the
// file has what was copied until then.
func Save(ctx context.Context, blobs Blobs, ref storage.SnapshotRef, w io.Writer, options SaveOptions) error {
	if err := save(ctx, blobs, ref, w, options); err != nil {
		return fmt.Errorf("save snapshot %s: %w", ref.Name, err)
	}
	return nil
}

func save(ctx context.Context, blobs Blobs, ref storage.SnapshotRef, w io.Writer, options SaveOptions) error {
	m, encoded, err := options.Retry.open(ctx, blobs, ref)
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	add := func(name string, content []byte) error {
		err := out.WriteHeader(tarHeader(name, int64(len(content))))
		if err == nil {
			_, err = out.Write(content)
		}
		return err
	}
	if err := add(ref.Name, encoded); err != nil {
		return err
	}
	parts := m.Unique()
	var done, total, had int64
	for _, p := range parts {
		total += int64(p.Stored)
	}
	l := loader{}
	defer l.close()
	for _, p := range parts {
		here := false
		if options.Have != nil {
			l.blobs, l.retry = options.Have, Retry{Patience: -1}
			here = l.load(ctx, p) == nil
		}
		if here {
			had += int64(p.Stored)
		} else {
			l.blobs, l.retry = blobs, options.Retry
			if err := l.load(ctx, p); err != nil {
				return err
			}
		}
		if err := add(p.Name(), l.stored.Bytes()); err != nil {
			return err
		}
		if done += int64(p.Stored); options.Progress != nil {
			options.Progress(done, total, had)
		}
	}
	return out.Close()
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
	file vfs.File
	ref  storage.SnapshotRef
	when time.Time
	size int64 // of the whole file
	// order is that of the blobs in the file, index where the content of each stands, or would in a file that is whole.
	order []string
	index map[string]extent
}

type extent struct{ at, size int64 }

// end is where the next blob's header begins.
func (e extent) end() int64 { return e.at + e.size + tarPadding(e.size) }

// OpenFile opens a backup file. Its manifest is verified, its parts are not: those that a truncated file does not have are found missing
// when they are read. Only Verify looks at what stands between them. Another kind of file gives ErrNotBackup.
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
	f.when, f.size = stat.ModTime(), stat.Size()
	section := io.NewSectionReader(f.file, 0, stat.Size())
	in := tar.NewReader(section)
	header, err := firstHeader(in)
	if err != nil {
		return err
	}
	f.place(header.Name, header.Size)
	encoded, err := readManifest(context.Background(), f, header.Name)
	if err != nil {
		return err
	}
	m, ref, err := parseManifest(header.Name, encoded)
	if err != nil {
		return err
	}
	f.ref = ref
	for _, p := range m.Unique() {
		f.place(p.Name(), int64(p.Stored))
	}
	return nil
}

// place says where the next blob stands, by what Save writes.
func (f *File) place(name string, size int64) {
	e := extent{at: tarBlock, size: size}
	if n := len(f.order); n > 0 {
		before := f.index[f.order[n-1]]
		e.at += before.end()
	}
	f.order = append(f.order, name)
	f.index[name] = e
}

// Ref is the reference to the snapshot in the file.
func (f *File) Ref() storage.SnapshotRef { return f.ref }

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }

// Get implements Blobs.
func (f *File) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	e, ok := f.index[name]
	if !ok || e.at+e.size > f.size {
		return nil, fmt.Errorf("get %s from a backup: %w", name, ErrNotFound)
	}
	return io.NopCloser(&contextReader{ctx: ctx, r: io.NewSectionReader(f.file, e.at, e.size)}), nil
}

// Stat implements Blobs.
func (f *File) Stat(_ context.Context, name string) (BlobInfo, error) {
	e, ok := f.index[name]
	if !ok || e.at+e.size > f.size {
		return BlobInfo{}, fmt.Errorf("look for %s in a backup: %w", name, ErrNotFound)
	}
	return BlobInfo{Name: name, Size: e.size, Modified: f.when}, nil
}

// List implements Blobs.
func (f *File) List(context.Context) ([]BlobInfo, error) {
	var blobs []BlobInfo
	for name, e := range f.index {
		if e.at+e.size > f.size {
			continue
		}
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
