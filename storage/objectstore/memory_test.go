package objectstore

import (
	"context"
	"flag"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
)

var memoryMiB = flag.Int("memory-mib", 64, "size of the state in the test of memory, in MiB")

// sink forgets what is in the parts that it is given, and measures how much is held meanwhile.
type sink struct {
	Blobs
	mu    sync.Mutex
	most  uint64
	parts []BlobInfo
}

func (s *sink) List(context.Context) ([]BlobInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parts, nil
}

func (s *sink) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	s.mu.Lock()
	s.most = max(s.most, heap())
	s.mu.Unlock()
	if isManifest(name) {
		return s.Blobs.Put(ctx, name, size, r)
	}
	_, err := io.Copy(io.Discard, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts = append(s.parts, BlobInfo{Name: name, Size: size})
	return err
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestMemoryOfAnUploadIsBounded uploads what cannot be compressed, in parts of the usual size.
func TestMemoryOfAnUploadIsBounded(t *testing.T) {
	s := &sink{Blobs: newTestDirectory()}
	before := heap()
	u, err := Begin(t.Context(), s, clusterA, UploadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Abort()
	w := u.Layer(raft.LogID{})
	source := io.LimitReader(rand.NewChaCha8([32]byte{1}), int64(*memoryMiB)<<20)
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, source, make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, stats, err := u.Commit(t.Context(), testMeta(10))
	if err != nil {
		t.Fatal(err)
	}
	const limit = 56 << 20
	t.Logf("%+v; at most %d MiB", stats, (s.most-min(before, s.most))>>20)
	if s.most > before+limit {
		t.Errorf("%d MiB were held", (s.most-before)>>20)
	}
}

// TestMemoryOfAReaderIsBounded reads parts of the usual size from files.
func TestMemoryOfAReaderIsBounded(t *testing.T) {
	d := NewDirectory(vfs.Default, t.TempDir())
	u, err := Begin(t.Context(), d, clusterA, UploadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Abort()
	w := u.Layer(raft.LogID{})
	const size = 40 << 20
	if _, err := io.CopyN(struct{ io.Writer }{w}, rand.NewChaCha8([32]byte{1}), size); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	ref, _, err := u.Commit(t.Context(), testMeta(10))
	if err != nil {
		t.Fatal(err)
	}
	m := openSnapshot(t, d, ref)
	u = nil
	before, most, read := heap(), uint64(0), int64(0)
	r := Reader(t.Context(), d, m, once)
	for {
		n, err := io.CopyN(io.Discard, r, 8<<20)
		read += n
		most = max(most, heap())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	const limit = 48 << 20
	if err := r.Close(); err != nil || read != size {
		t.Fatalf("%d bytes, %v", read, err)
	}
	t.Logf("at most %d MiB", (most-min(before, most))>>20)
	if most > before+limit {
		t.Errorf("%d MiB were held", (most-before)>>20)
	}
}
