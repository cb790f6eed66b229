package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nats-io/nats.go/jetstream"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/objectstore"
)

// A bucket that is full costs nobody anything: the cluster serves, says what is wrong, keeps its logs and tries again, less and less often.
// When there is room again, all is as it was.
func TestAFullBucketIsSaidAndTheClusterServes(t *testing.T) {
	t.Parallel()
	c := newStoringCluster(t, "n1")
	conn, err := c.server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	small, err := objectstore.NewBucket(conn, "quorate-test", raft.ClusterID{1}, objectstore.BucketOptions{MaxBytes: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := small.Put(t.Context(), "filler", 7<<10, bytes.NewReader(make([]byte, 7<<10))); err != nil {
		t.Fatal(err)
	}
	c.start("n1")
	want := c.fill(nil, 60)
	status, err := c.nodes["n1"].Wait(within(t, 30*time.Second), func(s node.Status) bool { return s.Snapshot.Problem != "" })
	if err != nil || !strings.Contains(status.Snapshot.Problem, "the log is kept") || !strings.Contains(strings.Join(status.Warnings, " "), status.Snapshot.Problem) {
		t.Fatalf("%v: %+v", err, status)
	}
	if _, err := c.nodes["n1"].Snapshot(within(t, 20*time.Second)); !errors.Is(err, objectstore.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	want = c.fill(want, 100)
	if s := c.nodes["n1"].Status(); s.PurgedIndex != 0 || s.Snapshot.Problem == "" {
		t.Errorf("%+v", s)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "OBJ_quorate-test")
	if err != nil {
		t.Fatal(err)
	}
	roomy := stream.CachedInfo().Config
	roomy.MaxBytes = -1
	if _, err := js.UpdateStream(t.Context(), roomy); err != nil {
		t.Fatal(err)
	}
	if _, err := c.nodes["n1"].Wait(within(t, 30*time.Second), func(s node.Status) bool {
		return s.Snapshot.Problem == "" && s.Snapshot.Index > 0 && s.PurgedIndex > 0
	}); err != nil {
		t.Fatalf("%v: %+v", err, c.nodes["n1"].Status())
	}
	c.holds("n1", want)
}

// troubled is an object store that goes and comes back.
type troubled struct {
	objectstore.Blobs
	mu      sync.Mutex
	trouble func(ctx context.Context) error // of a Put
	tries   []time.Time
}

func (s *troubled) set(trouble func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble, s.tries = trouble, nil
}

func (s *troubled) begun() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Time(nil), s.tries...)
}

func (s *troubled) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	s.mu.Lock()
	trouble := s.trouble
	s.tries = append(s.tries, time.Now())
	s.mu.Unlock()
	if trouble != nil {
		if err := trouble(ctx); err != nil {
			return err
		}
	}
	return s.Blobs.Put(ctx, name, size, r)
}

// An object store that hangs, or is gone, does not hold up anything but the snapshot. Attempts back off.
func TestAnObjectStoreThatHangsOrIsGoneHoldsUpSnapshotsOnly(t *testing.T) {
	t.Parallel()
	store := &troubled{Blobs: objectstore.NewDirectory(vfs.NewMem(), "/store")}
	hung := make(chan struct{}, 100)
	store.set(func(ctx context.Context) error {
		hung <- struct{}{}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	c := newCluster(t, "n1")
	c.tune = func(cfg *node.Config) { cfg.SnapshotEntries, cfg.KeepEntries, cfg.Snapshots = 50, 10, store }
	c.start("n1")
	want := c.fill(nil, 60)
	select {
	case <-hung:
	case <-time.After(20 * time.Second):
		t.Fatal("no snapshot is built")
	}
	want = c.fill(want, 60)
	if s := c.nodes["n1"].Status(); !s.Snapshot.Building || s.PurgedIndex != 0 {
		t.Errorf("%+v", s.Snapshot)
	}
	c.stop("n1") // which waits for the builder, and that for nobody
	gone := errors.New("nobody is there")
	store.set(func(context.Context) error { return &objectstore.UnavailableError{Err: gone, Lasting: true} })
	c.start("n1")
	if _, err := c.nodes["n1"].Wait(within(t, 20*time.Second), func(s node.Status) bool { return strings.Contains(s.Snapshot.Problem, gone.Error()) }); err != nil {
		t.Fatal(err, c.nodes["n1"].Status().Snapshot)
	}
	waitFor(t, "three attempts", func() bool { want = c.fill(want, 1); return len(store.begun()) >= 3 })
	tries := store.begun()
	if first, second := tries[1].Sub(tries[0]), tries[2].Sub(tries[1]); first < time.Second || second < 2*time.Second {
		t.Errorf("attempts after %v, then %v: that is no back-off", first, second)
	}
	store.set(nil)
	if _, err := c.nodes["n1"].Wait(within(t, 30*time.Second), func(s node.Status) bool { return s.Snapshot.Problem == "" && s.PurgedIndex > 0 }); err != nil {
		t.Fatal(err, c.nodes["n1"].Status().Snapshot)
	}
	c.holds("n1", want)
}

// Of the snapshots in the object store, the newest two stay.
func TestOldSnapshotsAreRemoved(t *testing.T) {
	c := newStoringCluster(t, "n1")
	c.start("n1")
	conn, err := c.server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	made := map[uint64]bool{}
	var have []string
	for range 5 {
		have = c.fill(have, 20)
		ref, err := c.nodes["n1"].Snapshot(within(t, 20*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		made[ref.Last.Index] = true
	}
	bucket, err := objectstore.NewBucket(conn, "quorate-test", c.nodes["n1"].ClusterID(), objectstore.BucketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "old snapshots to be removed", func() bool {
		refs, damaged, err := objectstore.List(t.Context(), bucket)
		return err == nil && len(damaged) == 0 && len(refs) == 2
	})
	if len(made) != 5 {
		t.Errorf("%d snapshots were made", len(made))
	}
}

// said is a log that a test looks into.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), text)
}

// A damaged object is noticed by who fetches it, told to the leader, said in the log, and built again.
func TestADamagedSnapshotIsBuiltAgain(t *testing.T) {
	for name, damage := range map[string]func(part []byte) []byte{
		"missing":     func([]byte) []byte { return nil },
		"truncated":   func(part []byte) []byte { return part[:len(part)-1] },
		"bit flipped": func(part []byte) []byte { part[len(part)/2] ^= 1; return part },
	} {
		t.Run(name, func(t *testing.T) {
			c := newStoringCluster(t, "n1")
			log, tune := &said{}, c.tune
			c.tune = func(cfg *node.Config) {
				tune(cfg)
				cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
			}
			c.start("n1")
			want := c.fill(nil, 120)
			status := c.purged("n1", 50)
			conn, err := c.server.Connect()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := c.nodes["n1"].Switch(within(t, 10*time.Second), node.Switches{NoSnapshots: true}); err != nil {
				t.Fatal(err)
			}
			if _, err := c.nodes["n1"].Wait(within(t, 10*time.Second), func(s node.Status) bool { return !s.Snapshot.Building }); err != nil {
				t.Fatal(err)
			}
			bucket, err := objectstore.NewBucket(conn, "quorate-test", c.nodes["n1"].ClusterID(), objectstore.BucketOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if n := damageParts(t, bucket, damage); n == 0 {
				t.Fatal("no parts")
			}
			// Its own copy, with which the node could help out.
			own, err := filepath.Glob(filepath.Join(c.dir, "n1", "snapshots", "part-*"))
			for _, part := range own {
				err = errors.Join(err, os.Remove(part))
			}
			if err != nil || len(own) == 0 {
				t.Fatal(own, err)
			}
			c.join("n2")
			if _, err := c.nodes["n1"].AddLearner(within(t, 30*time.Second), "n2"); err != nil {
				t.Fatal(err)
			}
			c.holds("n2", want)
			if after := c.nodes["n1"].Status().Snapshot; after.Index < status.Snapshot.Index || after.Sent == 0 {
				t.Errorf("%+v, then %+v", status.Snapshot, after)
			}
			for _, text := range []string{"cannot fetch a snapshot", "is damaged in the object store; it is built again"} {
				if !log.has(text) {
					t.Errorf("nobody says %q", text)
				}
			}
		})
	}
}

// A snapshot that is damaged is built anew, every part of it, also when the first attempt fails: what is there is trusted no more after that.
func TestADamagedSnapshotIsNotTrustedAfterABuildThatFailed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1")
	store := &troubled{Blobs: objectstore.NewDirectory(vfs.NewMem(), "/store")}
	c.overMemory(func(cfg *node.Config) { cfg.SnapshotEntries, cfg.KeepEntries, cfg.Snapshots = 50, 10, store })
	c.start("n1")
	want := c.fill(nil, 120)
	c.purged("n1", 50)
	if err := c.nodes["n1"].Switch(within(t, 10*time.Second), node.Switches{NoSnapshots: true}); err != nil {
		t.Fatal(err)
	}
	awaitSnapshot := func(what string, is func(node.SnapshotStatus) bool) {
		t.Helper()
		if s, err := c.nodes["n1"].Wait(within(t, 20*time.Second), func(s node.Status) bool { return is(s.Snapshot) }); err != nil {
			t.Fatalf("%s: %v: %+v", what, err, s.Snapshot)
		}
	}
	awaitSnapshot("the last build", func(s node.SnapshotStatus) bool { return !s.Building })
	if n := damageParts(t, store.Blobs, func(part []byte) []byte { part[len(part)/2] ^= 1; return part }); n == 0 {
		t.Fatal("no parts")
	}
	store.set(func(context.Context) error {
		store.set(nil)
		return &objectstore.UnavailableError{Err: errors.New("hiccup"), Lasting: true}
	})
	c.join("n2")
	if _, err := c.nodes["n1"].AddLearner(within(t, 30*time.Second), "n2"); err != nil {
		t.Fatal(err)
	}
	awaitSnapshot("an attempt that fails", func(s node.SnapshotStatus) bool { return strings.Contains(s.Problem, "hiccup") })
	awaitSnapshot("one that is complete", func(s node.SnapshotStatus) bool { return s.Problem == "" })
	ref, err := objectstore.Newest(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	if err := objectstore.Verify(t.Context(), store, ref, objectstore.Retry{Patience: -1}); err != nil {
		t.Errorf("the attempt after the failed one was complete, and: %v", err)
	}
	c.holds("n2", want)
}

// damageParts changes all parts of snapshots, or removes those that become nothing.
func damageParts(t *testing.T, bucket objectstore.Blobs, damage func([]byte) []byte) (n int) {
	t.Helper()
	blobs, err := bucket.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, blob := range blobs {
		if !strings.HasPrefix(blob.Name, "part-") {
			continue
		}
		n++
		r, err := bucket.Get(t.Context(), blob.Name)
		if err != nil {
			t.Fatal(err)
		}
		part, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		if part = damage(part); part == nil {
			err = bucket.Delete(t.Context(), blob.Name)
		} else {
			err = bucket.Put(t.Context(), blob.Name, int64(len(part)), bytes.NewReader(part))
		}
		if err != nil {
			t.Fatal(fmt.Errorf("damage %s: %w", blob.Name, err))
		}
	}
	return n
}
