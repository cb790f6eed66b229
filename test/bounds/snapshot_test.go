package bounds

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/raft"
)

var snapshotMiB = flag.Int("snapshot-mib", 1024, "size of the state of BenchmarkSnapshot, in MiB")

// playStore is a member of a cluster whose snapshots are measured, which it joins if no members are given. It builds snapshots when it is
// asked to only.
func playStore(ctx context.Context, url, dir, id string, members ...raft.NodeID) error {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	store, err := kv.OpenStore(filepath.Join(dir, id, "state"), kv.StoreOptions{Logger: logger})
	if err != nil {
		return err
	}
	keep := uint64(0) // the default
	if len(members) == 1 {
		keep = 100 // who joins needs the snapshot
	}
	n, err := node.Start(ctx, node.Config{
		KeepEntries: keep,
		Cluster:     "bounds", ID: raft.NodeID(id), Members: members, Join: len(members) == 0, Dir: filepath.Join(dir, id, "log"), URL: url,
		SnapshotEntries: 1 << 40, SnapshotBytes: 1 << 60, Logger: logger,
	}, store)
	if err != nil {
		return err
	}
	service, err := kv.Serve(n, store, kv.ServiceOptions{Logger: logger})
	if err != nil {
		return errors.Join(err, n.Close(context.Background()))
	}
	conn, err := serveMemory(url, id)
	if err != nil {
		return errors.Join(err, service.Close(), n.Close(context.Background()))
	}
	defer conn.Close()
	select {
	case <-ctx.Done():
	case <-n.Done():
	}
	return errors.Join(service.Close(), n.Close(context.Background()))
}

// BenchmarkSnapshot fills a cluster of three processes with a state of some size (-snapshot-mib), and measures the p99 of writes by a few
// writers while nothing else goes on, and while a snapshot is built and uploaded. Target: at most 2. Then it changes 1 % of the keys, once
// in a row and once at random, and measures what the next snapshot sends. Target: at most 0.2 of the state. The builder's memory is the
// leader's process's peak, less that before.
func BenchmarkSnapshot(b *testing.B) {
	dir := benchDir(b)
	var url string
	if _, err := fmt.Fscanln(startRole(b, "jetstream", "", filepath.Join(dir, "nats"), ""), &url); err != nil || !strings.HasPrefix(url, "nats://") {
		b.Fatalf("NATS server did not start: %q %v", url, err)
	}
	for _, id := range []string{"n1", "n2", "n3"} {
		startRole(b, "store", url, dir, id)
	}
	conn, err := nats.Connect(url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(conn.Close)
	client, err := kv.NewClient(conn, "bounds")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = client.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()

	const quietSpan = 10 * time.Second // of writes beside which nothing is done
	keys := *snapshotMiB << 20 / stateValueBytes
	all := make([]int, keys)
	for i := range all {
		all[i] = i
	}
	begun := time.Now()
	putState(ctx, b, client, all, 1)
	b.Logf("%d MiB written in %v", *snapshotMiB, time.Since(begun).Round(time.Second))
	admin := node.NewAdmin(conn, "quorate", "bounds")
	settle(b, ctx, admin)

	quiet := latencies(b, client, func(<-chan struct{}) { <-time.After(quietSpan) })
	var ref raft.SnapshotRef
	busy := latencies(b, client, func(<-chan struct{}) {
		if ref, err = admin.Snapshot(ctx); err != nil {
			b.Error(err)
		}
	})
	leader, err := admin.Leader(ctx)
	if err != nil {
		b.Fatal(err)
	}
	status, err := admin.Status(ctx, leader)
	if err != nil {
		b.Fatal(err)
	}
	ratio := float64(p99(busy)) / float64(p99(quiet))
	b.Logf("p99 of writes %v without, %v while a snapshot of %d MiB was built and uploaded in %v: %.2f", p99(quiet), p99(busy), ref.Bytes>>20, status.Snapshot.Took.Round(time.Millisecond), ratio)
	b.ReportMetric(ratio, "of-p99-without")

	random := rand.New(rand.NewPCG(1, 2))
	for name, changed := range map[string][]int{"in-a-row": all[keys/3 : keys/3+keys/100], "at-random": random.Perm(keys)[:keys/100]} {
		putState(ctx, b, client, changed, 2)
		made, err := admin.Snapshot(ctx)
		if err != nil {
			b.Fatal(err)
		}
		var status node.Status
		waitFor(b, "the leader to say what it sent", func() bool {
			status, err = admin.Status(ctx, leader)
			return err == nil && status.Snapshot.Index == made.Last.Index
		})
		part := float64(status.Snapshot.Sent) / float64(ref.Bytes)
		b.Logf("1 %% of the keys changed, %s: %d of %d MiB sent", name, status.Snapshot.Sent>>20, ref.Bytes>>20)
		b.ReportMetric(part, "sent-"+name)
	}
}

// stateValueBytes is the size of a value.
const stateValueBytes = 16 << 10

func stateKey(index int) string { return fmt.Sprintf("state/%08d", index) }

// stateValue is the value of a key in some generation. Half of it can be compressed away, as in life.
func stateValue(index, generation int) []byte {
	random := rand.NewPCG(uint64(index), uint64(generation))
	v := make([]byte, stateValueBytes)
	for i := 0; i < len(v)/2; i += 8 {
		binary.LittleEndian.PutUint64(v[i:], random.Uint64())
	}
	return v
}

// putState writes keys from many goroutines.
func putState(ctx context.Context, tb testing.TB, client *kv.Client, indexes []int, generation int) {
	tb.Helper()
	var next atomic.Int64
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(indexes); i = int(next.Add(1)) - 1 {
				if _, err := client.Put(ctx, stateKey(indexes[i]), stateValue(indexes[i], generation)); err != nil {
					tb.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

// settle waits until the followers have what the leader has.
func settle(b *testing.B, ctx context.Context, admin *node.Admin) {
	b.Helper()
	waitFor(b, "the followers", func() bool {
		var applied []uint64
		for _, id := range []raft.NodeID{"n1", "n2", "n3"} {
			status, err := admin.Status(ctx, id)
			if err != nil {
				return false
			}
			applied = append(applied, status.AppliedIndex)
		}
		return slices.Min(applied)+10 > slices.Max(applied)
	})
}

// latencies writes from a few goroutines while something is done, and returns how long each write took.
func latencies(b *testing.B, client *kv.Client, while func(stop <-chan struct{})) []time.Duration {
	b.Helper()
	stop := make(chan struct{})
	var group sync.WaitGroup
	taken := make([][]time.Duration, 4)
	for i := range taken {
		group.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				sent := time.Now()
				if _, err := client.Put(context.Background(), fmt.Sprintf("probe/%d/%d", i, n%100), make([]byte, valueBytes)); err != nil {
					b.Error(err)
					return
				}
				taken[i] = append(taken[i], time.Since(sent))
			}
		})
	}
	while(stop)
	close(stop)
	group.Wait()
	return slices.Concat(taken...)
}

func p99(all []time.Duration) time.Duration {
	slices.Sort(all)
	if len(all) == 0 {
		return 0
	}
	return all[len(all)*99/100]
}
