package objectstore

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
)

// A backup is a tar that looks the same, byte for byte, whoever writes it: without times and owners. So what is not content can be
// verified as well: it must be what Save would have written.
const (
	tarBlock = 512
	// tarEnd is the length of the mark of the end, which is all zeros.
	tarEnd = 2 * tarBlock
)

func tarHeader(name string, size int64) *tar.Header {
	return &tar.Header{Name: name, Mode: 0o644, Size: size, Format: tar.FormatUSTAR}
}

// tarPadding is how many zeros follow on a content of some size.
func tarPadding(size int64) int64 { return -size & (tarBlock - 1) }

// frameChecker is a store whose blobs have something around them that no digest covers.
type frameChecker interface {
	// checkFrames returns a *DamagedError if that is not what it should be.
	checkFrames(ctx context.Context) error
}

// checkFrames implements frameChecker.
func (f *File) checkFrames(ctx context.Context) error {
	end := int64(0)
	for _, name := range f.order {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e := f.index[name]
		var header bytes.Buffer
		if err := tar.NewWriter(&header).WriteHeader(tarHeader(name, e.size)); err != nil {
			return err
		}
		if err := f.expect(e.at-tarBlock, header.Bytes(), name, "its header is not what it was"); err != nil {
			return err
		}
		if err := f.expect(e.at+e.size, make([]byte, tarPadding(e.size)), name, "what follows it is not what it was"); err != nil {
			return err
		}
		end = e.end()
	}
	last := f.order[len(f.order)-1]
	if err := f.expect(end, make([]byte, tarEnd), last, "the end of the file, after it, is not what it was"); err != nil {
		return err
	}
	if end += tarEnd; f.size != end {
		return &DamagedError{Part: last, Reason: fmt.Sprintf("%d bytes follow the end of the file, after it", f.size-end)}
	}
	return nil
}

// expect compares a piece of the file.
func (f *File) expect(at int64, want []byte, name, reason string) error {
	if at+int64(len(want)) > f.size {
		return &DamagedError{Part: name, Reason: "the file ends too early"}
	}
	got := make([]byte, len(want))
	if _, err := f.file.ReadAt(got, at); err != nil {
		return fmt.Errorf("read a backup: %w", err)
	}
	if !bytes.Equal(got, want) {
		return &DamagedError{Part: name, Reason: reason}
	}
	return nil
}
