package objectstore

import (
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
)

// BenchmarkBucket uploads and fetches what cannot be compressed, in parts and chunks of the usual size.
func BenchmarkBucket(b *testing.B) {
	bucket, err := NewBucket(startServer(b, true).connect(), "bench", clusterA, BucketOptions{})
	if err != nil {
		b.Fatal(err)
	}
	const size = 128 << 20
	source := rand.NewChaCha8([32]byte{1})
	b.SetBytes(size)
	b.Run("upload", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			u, err := Begin(b.Context(), bucket, clusterA, UploadOptions{})
			if err != nil {
				b.Fatal(err)
			}
			w := u.Layer(raft.LogID{})
			if _, err := io.CopyN(struct{ io.Writer }{w}, source, size); err != nil {
				b.Fatal(err)
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
			if _, _, err := u.Commit(b.Context(), testMeta(10)); err != nil {
				b.Fatal(err)
			}
		}
	})
	ref, err := Newest(b.Context(), bucket)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("fetch", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if err := Fetch(b.Context(), bucket, NewDirectory(vfs.Default, b.TempDir()), ref, FetchOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkCutter(b *testing.B) {
	content := randomBytes(1, 1<<20)
	b.SetBytes(int64(len(content)))
	c := newCutter(PartSizes{Min: 2 << 10, Average: 1 << 20, Max: 8 << 20})
	for b.Loop() {
		for rest := content; len(rest) > 0; {
			n, _ := c.next(rest)
			rest = rest[n:]
		}
	}
}
