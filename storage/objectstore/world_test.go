package objectstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/transport/embednats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	clusterA   = raft.ClusterID{0xa}
	clusterB   = raft.ClusterID{0xb}
	smallParts = PartSizes{Min: 4 << 10, Average: 8 << 10, Max: 16 << 10}
	once       = Retry{Patience: -1}
)

// testServer is a NATS server that can be stopped and started again with what it has stored.
type testServer struct {
	t       testing.TB
	options embednats.Options
	mu      sync.Mutex
	server  *embednats.Server
}

func startServer(t testing.TB, jetStream bool) *testServer {
	t.Helper()
	s := &testServer{t: t, options: embednats.Options{Port: -1, Dir: t.TempDir(), JetStream: jetStream}}
	s.start()
	s.options.Port = s.server.Port()
	t.Cleanup(s.stop)
	return s
}

func (s *testServer) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	server, err := embednats.Start(s.options)
	if err != nil {
		s.t.Error(err)
		return
	}
	s.server = server
}

func (s *testServer) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return
	}
	if err := s.server.Close(); err != nil {
		s.t.Error(err)
	}
	s.server = nil
}

func (s *testServer) connect() *nats.Conn {
	s.t.Helper()
	conn, err := s.server.Connect(nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // the default prints
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(conn.Close)
	return conn
}

func newTestBucket(t testing.TB, conn *nats.Conn, cluster raft.ClusterID, options BucketOptions) *Bucket {
	t.Helper()
	if options.ChunkBytes == 0 {
		options.ChunkBytes = 2 << 10 // so that parts have several chunks
	}
	b, err := NewBucket(conn, "quorate-test", cluster, options)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// eachStore runs a test over each kind of store that can be written.
func eachStore(t *testing.T, f func(t *testing.T, blobs Blobs)) {
	t.Run("bucket", func(t *testing.T) {
		f(t, newTestBucket(t, startServer(t, true).connect(), clusterA, BucketOptions{}))
	})
	t.Run("directory", func(t *testing.T) { f(t, newTestDirectory()) })
}

func newTestDirectory() *Directory { return NewDirectory(vfs.NewMem(), "/node/snapshots") }

func testMeta(index uint64) storage.SnapshotMeta {
	return storage.SnapshotMeta{
		Last:         raft.LogID{Term: 3, Index: index},
		Membership:   &raft.Membership{Members: []raft.Member{{Peer: raft.Peer{ID: "n1", Incarnation: 7}, Voter: true}}},
		MembershipID: raft.LogID{Term: 1, Index: 1},
		System:       []storage.SystemRecord{{Key: "session/1", Value: []byte("open")}},
	}
}

// randomBytes gives bytes of which a half is noise and a half repeats, so that compression has something to do.
func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := 0; i < n; i += 64 {
		for j := i; j < min(i+32, n); j++ {
			b[j] = byte(r.Uint32())
		}
	}
	return b
}

func upload(t testing.TB, blobs Blobs, index uint64, content []byte) (storage.SnapshotRef, Stats) {
	t.Helper()
	return uploadWith(t, blobs, index, content, UploadOptions{Sizes: smallParts})
}

func uploadWith(t testing.TB, blobs Blobs, index uint64, content []byte, options UploadOptions) (storage.SnapshotRef, Stats) {
	t.Helper()
	u, err := Begin(t.Context(), blobs, clusterA, options)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Abort()
	writeLayer(t, u, raft.LogID{}, content)
	ref, stats, err := u.Commit(t.Context(), testMeta(index))
	if err != nil {
		t.Fatal(err)
	}
	return ref, stats
}

func writeLayer(t testing.TB, u *Upload, since raft.LogID, content []byte) {
	t.Helper()
	w := u.Layer(since)
	for rest := content; len(rest) > 0; { // in pieces that do not fit the parts
		n := min(len(rest), 5000)
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func openSnapshot(t testing.TB, blobs Blobs, ref storage.SnapshotRef) *Manifest {
	t.Helper()
	m, err := Open(t.Context(), blobs, ref)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func readSnapshot(t testing.TB, blobs Blobs, ref storage.SnapshotRef) []byte {
	t.Helper()
	r := Reader(t.Context(), blobs, openSnapshot(t, blobs, ref), once)
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t testing.TB, blobs Blobs, name string, content []byte) {
	t.Helper()
	if err := blobs.Put(t.Context(), name, int64(len(content)), bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

func get(ctx context.Context, blobs Blobs, name string) ([]byte, error) {
	r, err := blobs.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

func mustGet(t testing.TB, blobs Blobs, name string) []byte {
	t.Helper()
	b, err := get(t.Context(), blobs, name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func names(t testing.TB, blobs Blobs) map[string]bool {
	t.Helper()
	all, err := blobs.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	set := make(map[string]bool)
	for _, b := range all {
		set[b.Name] = true
	}
	return set
}

// only has a sweep keep some snapshots and no others.
func only(kept ...storage.SnapshotRef) func(storage.SnapshotRef, *Manifest) bool {
	return func(ref storage.SnapshotRef, _ *Manifest) bool { return slices.Contains(kept, ref) }
}

// watched is a store whose calls a test counts and meddles with.
type watched struct {
	Blobs
	mu     sync.Mutex
	gets   map[string]int
	puts   map[string]int
	onGet  func(n int, name string) error
	source func(n int, r io.Reader) io.Reader // of a put
}

func watch(b Blobs) *watched {
	return &watched{Blobs: b, gets: make(map[string]int), puts: make(map[string]int)}
}

func (w *watched) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	w.mu.Lock()
	w.gets[name]++
	n := total(w.gets)
	w.mu.Unlock()
	if w.onGet != nil {
		if err := w.onGet(n, name); err != nil {
			return nil, err
		}
	}
	return w.Blobs.Get(ctx, name)
}

func (w *watched) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	w.mu.Lock()
	w.puts[name]++
	n := total(w.puts)
	w.mu.Unlock()
	if w.source != nil {
		r = w.source(n, r)
	}
	return w.Blobs.Put(ctx, name, size, r)
}

func total(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}

// wantDamage checks that an error names the damaged blob.
func wantDamage(t testing.TB, err error, name string) {
	t.Helper()
	var damaged *DamagedError
	if !errors.As(err, &damaged) || damaged.Part != name {
		t.Fatalf("got %v, want damage of %s", err, name)
	}
}

func flipped(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)/2] ^= 0x10
	return b
}
