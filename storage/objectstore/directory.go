package objectstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/storage"
)

// Directory keeps blobs as files. A file is written under another name, synced, renamed, and its directory synced: what has a blob's
// name is whole, also after a loss of power.
type Directory struct {
	files vfs.FS
	path  string

	mu   sync.Mutex // guards made
	made bool
}

// temporary ends the names of files that are being written.
const temporary = ".tmp"

// NewDirectory returns the blobs in a directory, which the first Put makes if need be.
func NewDirectory(files vfs.FS, path string) *Directory { return &Directory{files: files, path: path} }

// Path is where the blobs are.
func (d *Directory) Path() string { return d.path }

func (d *Directory) file(name string) string { return d.files.PathJoin(d.path, name) }

// Put implements Blobs.
func (d *Directory) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	if err := checkBlobName(name); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	if err := d.put(ctx, name, size, r); err != nil {
		return fmt.Errorf("put %s into %s: %w", name, d.path, err)
	}
	return nil
}

func (d *Directory) put(ctx context.Context, name string, size int64, r io.Reader) error {
	if err := d.make(); err != nil {
		return err
	}
	// The random end lets the same blob be written twice at once.
	written := d.file(name + "." + rand.Text() + temporary)
	file, err := d.files.Create(written, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	n, err := io.Copy(file, &contextReader{ctx: ctx, r: io.LimitReader(r, size+1)})
	if err == nil && n != size {
		err = fmt.Errorf("the source does not have the %d bytes that it should", size)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = d.files.Rename(written, d.file(name))
	}
	if err != nil {
		return errors.Join(err, d.files.Remove(written))
	}
	return d.sync()
}

func (d *Directory) make() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.made {
		return nil
	}
	if err := storage.MakeDir(d.files, d.path, 0o755); err != nil {
		return err
	}
	d.made = true
	return nil
}

func (d *Directory) sync() error {
	dir, err := d.files.OpenDir(d.path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Get implements Blobs.
func (d *Directory) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := checkBlobName(name); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	file, err := d.files.Open(d.file(name))
	if err != nil {
		return nil, fmt.Errorf("get %s from %s: %w", name, d.path, notFound(err))
	}
	return &fileReader{contextReader: contextReader{ctx: ctx, r: file}, file: file}, nil
}

// Stat implements Blobs.
func (d *Directory) Stat(ctx context.Context, name string) (BlobInfo, error) {
	if err := errors.Join(checkBlobName(name), ctx.Err()); err != nil {
		return BlobInfo{}, fmt.Errorf("look for a blob: %w", err)
	}
	info, err := d.files.Stat(d.file(name))
	if err != nil {
		return BlobInfo{}, fmt.Errorf("look for %s in %s: %w", name, d.path, notFound(err))
	}
	return BlobInfo{Name: name, Size: info.Size(), Modified: info.ModTime()}, nil
}

// List implements Blobs.
func (d *Directory) List(ctx context.Context) ([]BlobInfo, error) {
	names, err := d.names()
	if err != nil {
		return nil, err
	}
	var blobs []BlobInfo
	for _, name := range names {
		if checkBlobName(name) != nil {
			continue
		}
		info, err := d.Stat(ctx, name)
		if errors.Is(err, ErrNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		blobs = append(blobs, info)
	}
	return blobs, nil
}

func (d *Directory) names() ([]string, error) {
	names, err := d.files.List(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", d.path, err)
	}
	return names, nil
}

// Delete implements Blobs.
func (d *Directory) Delete(ctx context.Context, name string) error {
	if err := errors.Join(checkBlobName(name), ctx.Err()); err != nil {
		return fmt.Errorf("delete a blob: %w", err)
	}
	err := d.files.Remove(d.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = d.sync()
	}
	if err != nil {
		return fmt.Errorf("delete %s from %s: %w", name, d.path, err)
	}
	return nil
}

// clean implements cleaner: it removes files that were not finished.
func (d *Directory) clean(ctx context.Context, olderThan time.Duration) ([]string, error) {
	names, err := d.names()
	if err != nil {
		return nil, err
	}
	var removed []string
	for _, name := range names {
		base, rest, _ := strings.Cut(name, ".")
		if !strings.HasSuffix(rest, temporary) || checkBlobName(base) != nil {
			continue
		}
		info, err := d.files.Stat(d.file(name))
		if err == nil && time.Since(info.ModTime()) >= olderThan {
			if err = d.files.Remove(d.file(name)); err == nil {
				removed = append(removed, name)
			}
		}
		if err = errors.Join(ctx.Err(), err); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, fmt.Errorf("clean %s: %w", d.path, err)
		}
	}
	return removed, nil
}

func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

// contextReader ends with its ctx, between two reads.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (r *contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

type fileReader struct {
	contextReader
	file io.Closer
}

// Close implements io.Closer.
func (r *fileReader) Close() error { return r.file.Close() }
