package objectstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nats-io/nats.go/jetstream"
)

func TestBlobsKeepWhatIsPut(t *testing.T) {
	eachStore(t, func(t *testing.T, blobs Blobs) {
		ctx := t.Context()
		if _, err := get(ctx, blobs, "none"); !errors.Is(err, ErrNotFound) {
			t.Fatalf("get from nothing: %v", err)
		}
		if _, err := blobs.Stat(ctx, "none"); !errors.Is(err, ErrNotFound) {
			t.Fatalf("stat in nothing: %v", err)
		}
		if n := names(t, blobs); len(n) != 0 {
			t.Fatalf("list of nothing: %v", n)
		}
		if err := blobs.Delete(ctx, "none"); err != nil {
			t.Fatalf("delete in nothing: %v", err)
		}
		contents := map[string][]byte{"empty": {}, "one": {1}, "chunks": randomBytes(1, 8<<10), "more": randomBytes(2, 8<<10+1)}
		for _, size := range []int{100, 0} { // the second time in place of the first
			for name, content := range contents {
				put(t, blobs, name, append(bytes.Clone(content), make([]byte, size)...))
			}
		}
		for name, content := range contents {
			if got := mustGet(t, blobs, name); !bytes.Equal(got, content) {
				t.Fatalf("%s: got %d bytes, want %d", name, len(got), len(content))
			}
			info, err := blobs.Stat(ctx, name)
			if name != "empty" && (err != nil || info.Size != int64(len(content)) || time.Since(info.Modified) > time.Hour) {
				t.Fatalf("%s: %+v, %v", name, info, err)
			}
		}
		if n := names(t, blobs); len(n) != len(contents) {
			t.Fatalf("list: %v", n)
		}
		if err := blobs.Delete(ctx, "more"); err != nil {
			t.Fatal(err)
		}
		if _, err := get(ctx, blobs, "more"); !errors.Is(err, ErrNotFound) {
			t.Fatalf("get after delete: %v", err)
		}
		if n := names(t, blobs); n["more"] || len(n) != len(contents)-1 {
			t.Fatalf("list after delete: %v", n)
		}
	})
}

func TestBlobsRefuseBadNames(t *testing.T) {
	eachStore(t, func(t *testing.T, blobs Blobs) {
		for _, name := range []string{"", "../up", "a/b", "A", "a.tmp", "ä", string(make([]byte, 1000))} {
			if err := blobs.Put(t.Context(), name, 1, bytes.NewReader([]byte{1})); err == nil {
				t.Errorf("put took %q", name)
			}
			if _, err := blobs.Get(t.Context(), name); err == nil {
				t.Errorf("get took %q", name)
			}
			if err := blobs.Delete(t.Context(), name); err == nil {
				t.Errorf("delete took %q", name)
			}
		}
	})
}

// TestPutCutHalfWay: what was there before stays, and nothing new is seen.
func TestPutCutHalfWay(t *testing.T) {
	eachStore(t, func(t *testing.T, blobs Blobs) {
		content := randomBytes(1, 20<<10)
		put(t, blobs, "old", content)
		broken := errors.New("broken")
		sources := map[string]func() io.Reader{
			"fails": func() io.Reader { return io.MultiReader(bytes.NewReader(content[:9000]), iotest.ErrReader(broken)) },
			"short": func() io.Reader { return bytes.NewReader(content[:9000]) },
			"long":  func() io.Reader { return bytes.NewReader(append(bytes.Clone(content), 1)) },
		}
		for name, source := range sources {
			for _, blob := range []string{"old", "new"} {
				err := blobs.Put(t.Context(), blob, int64(len(content)), source())
				if err == nil || name == "fails" && !errors.Is(err, broken) {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		reads := 0
		if err := blobs.Put(ctx, "new", int64(len(content)), readerFunc(func(p []byte) (int, error) {
			if reads++; reads == 3 {
				cancel()
			}
			return copy(p, content[:1000]), nil
		})); !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled: %v", err)
		}
		if got := mustGet(t, blobs, "old"); !bytes.Equal(got, content) {
			t.Fatal("what was there is gone")
		}
		if _, err := blobs.Stat(t.Context(), "new"); !errors.Is(err, ErrNotFound) {
			t.Fatalf("stat: %v", err)
		}
		if n := names(t, blobs); len(n) != 1 {
			t.Fatalf("list: %v", n)
		}
		if _, err := blobs.(cleaner).clean(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if got := mustGet(t, blobs, "old"); !bytes.Equal(got, content) {
			t.Fatal("clean removed what is named")
		}
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestCleanRemovesWhatACrashLeft(t *testing.T) {
	t.Run("bucket", func(t *testing.T) {
		conn := startServer(t, true).connect()
		a, b := newTestBucket(t, conn, clusterA, BucketOptions{}), newTestBucket(t, conn, clusterB, BucketOptions{})
		put(t, a, "kept", randomBytes(1, 5000))
		put(t, b, "kept", randomBytes(1, 5000))
		for _, bucket := range []*Bucket{a, b} {
			if err := bucket.publishChunk(t.Context(), bucket.chunks+"lost", []byte("half an object")); err != nil {
				t.Fatal(err)
			}
		}
		if removed, err := a.clean(t.Context(), time.Hour); err != nil || len(removed) != 0 {
			t.Fatalf("too early: %v, %v", removed, err)
		}
		if removed, err := a.clean(t.Context(), 0); err != nil || len(removed) != 1 {
			t.Fatalf("got %v, %v", removed, err)
		}
		if removed, err := b.clean(t.Context(), 0); err != nil || len(removed) != 1 {
			t.Fatalf("another cluster's was removed: %v, %v", removed, err)
		}
		mustGet(t, a, "kept")
		mustGet(t, b, "kept")
	})
	t.Run("directory", func(t *testing.T) {
		files := vfs.NewMem()
		d := NewDirectory(files, "/d")
		put(t, d, "kept", []byte("x"))
		for _, name := range []string{"part.ABC.tmp", "other"} {
			file, err := files.Create("/d/"+name, vfs.WriteCategoryUnspecified)
			if err == nil {
				_, err = file.Write([]byte("half"))
			}
			if err := errors.Join(err, file.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if removed, err := d.clean(t.Context(), time.Hour); err != nil || len(removed) != 0 {
			t.Fatalf("too early: %v, %v", removed, err)
		}
		if removed, err := d.clean(t.Context(), 0); err != nil || len(removed) != 1 {
			t.Fatalf("got %v, %v", removed, err)
		}
		if n := names(t, d); !n["kept"] || !n["other"] || len(n) != 2 {
			t.Fatalf("left: %v", n)
		}
	})
}

func TestDirectoryBlobIsWholeAfterPowerLoss(t *testing.T) {
	files := vfs.NewCrashableMem()
	d := NewDirectory(files, "/node/snapshots")
	content := randomBytes(1, 10000)
	put(t, d, "part-1", content)
	after := NewDirectory(files.CrashClone(vfs.CrashCloneCfg{}), "/node/snapshots")
	if got := mustGet(t, after, "part-1"); !bytes.Equal(got, content) {
		t.Fatalf("got %d bytes", len(got))
	}
}

// TestBucketObjectsAreOrdinary: other tools read what a Bucket stores.
func TestBucketObjectsAreOrdinary(t *testing.T) {
	conn := startServer(t, true).connect()
	content := randomBytes(1, 10000)
	put(t, newTestBucket(t, conn, clusterA, BucketOptions{}), "part-1", content)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	store, err := js.ObjectStore(t.Context(), "quorate-test")
	if err != nil {
		t.Fatal(err)
	}
	got, err := store.GetBytes(t.Context(), clusterA.String()+"/part-1")
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
}

func TestClustersShareABucket(t *testing.T) {
	conn := startServer(t, true).connect()
	a, b := newTestBucket(t, conn, clusterA, BucketOptions{}), newTestBucket(t, conn, clusterB, BucketOptions{})
	content := randomBytes(1, 50<<10)
	refA, _ := upload(t, a, 10, content)
	refB, stats := upload(t, b, 20, content)
	if stats.PartsReused != 0 {
		t.Fatalf("parts of another cluster's were used: %+v", stats)
	}
	if newest, err := Newest(t.Context(), a); err != nil || newest != refA {
		t.Fatalf("got %v, %v", newest, err)
	}
	if _, err := Sweep(t.Context(), a, nil, nil, 0); err != nil {
		t.Fatal(err)
	}
	if n := names(t, a); len(n) != 0 {
		t.Fatalf("left: %v", n)
	}
	if err := Verify(t.Context(), b, refB, once); err != nil {
		t.Fatal(err)
	}
}

func TestBucketWithoutJetStream(t *testing.T) {
	b := newTestBucket(t, startServer(t, false).connect(), clusterA, BucketOptions{})
	ctx := t.Context()
	wantUnavailable(t, b.Put(ctx, "a", 1, bytes.NewReader([]byte{1})))
	_, err := b.Get(ctx, "a")
	wantUnavailable(t, err)
	_, err = b.Stat(ctx, "a")
	wantUnavailable(t, err)
	_, err = b.List(ctx)
	wantUnavailable(t, err)
	wantUnavailable(t, b.Delete(ctx, "a"))
	if !errors.Is(err, jetstream.ErrJetStreamNotEnabled) {
		t.Fatalf("the cause is not said: %v", err)
	}
	u, err := Begin(ctx, b, clusterA, UploadOptions{Sizes: smallParts, Retry: once})
	if err != nil {
		t.Fatal(err)
	}
	w := u.Layer(testMeta(0).Last)
	_, _ = w.Write(randomBytes(1, 100<<10))
	_ = w.Close()
	_, _, err = u.Commit(ctx, testMeta(1))
	wantUnavailable(t, err)
}

func wantUnavailable(t *testing.T, err error) {
	t.Helper()
	var unavailable *UnavailableError
	if !errors.Is(err, ErrUnavailable) || !errors.As(err, &unavailable) || errors.Is(err, ErrNotFound) {
		t.Fatalf("got %v", err)
	}
}

func TestFullBucket(t *testing.T) {
	b := newTestBucket(t, startServer(t, true).connect(), clusterA, BucketOptions{MaxBytes: 64 << 10})
	err := Retry{}.do(t.Context(), func() error { // does not wait: somebody must make room
		return b.Put(t.Context(), "big", 100<<10, bytes.NewReader(make([]byte, 100<<10)))
	})
	wantUnavailable(t, err)
	if n := names(t, b); len(n) != 0 {
		t.Fatalf("half an object is seen: %v", n)
	}
	put(t, b, "small", make([]byte, 40<<10)) // the half object's room is free again
}

func TestOperationsEndWithTheirContext(t *testing.T) {
	server := startServer(t, true)
	b := newTestBucket(t, server.connect(), clusterA, BucketOptions{Timeout: time.Hour})
	put(t, b, "a", randomBytes(1, 10000))
	r, err := b.Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	server.stop()
	for name, f := range map[string]func(context.Context) error{
		"put":    func(ctx context.Context) error { return b.Put(ctx, "a", 1, bytes.NewReader([]byte{1})) },
		"get":    func(ctx context.Context) error { _, err := get(ctx, b, "a"); return err },
		"stat":   func(ctx context.Context) error { _, err := b.Stat(ctx, "a"); return err },
		"list":   func(ctx context.Context) error { _, err := b.List(ctx); return err },
		"delete": func(ctx context.Context) error { return b.Delete(ctx, "a") },
		"clean":  func(ctx context.Context) error { _, err := b.clean(ctx, 0); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		start := time.Now()
		err := f(ctx)
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > 5*time.Second {
			t.Errorf("%s: %v after %v", name, err, took)
		}
		cancel()
	}
}

func TestLostChunkIsNoticed(t *testing.T) {
	b := newTestBucket(t, startServer(t, true).connect(), clusterA, BucketOptions{})
	content := randomBytes(1, 10000)
	put(t, b, "a", content)
	stream, object, err := b.find(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(t.Context(), 3)
	if err != nil || m.Subject != b.chunkSubject(object.NUID) {
		t.Fatalf("the third message is %v, %v", m, err)
	}
	if err := stream.DeleteMsg(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if _, err := get(t.Context(), b, "a"); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("get: %v", err)
	}
	if _, err := b.Stat(t.Context(), "a"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("it would not be sent again: %v", err)
	}
	put(t, b, "a", content)
	if got := mustGet(t, b, "a"); !bytes.Equal(got, content) {
		t.Fatal("it was not put again")
	}
}
