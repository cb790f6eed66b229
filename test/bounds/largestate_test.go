package bounds

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/raft"
)

var largeStateMiB = flag.Int("large-state-mib", 0, "size of the state of TestALargeStateIsUploadedAndInstalled, in MiB; 0 skips it")

// TestALargeStateIsUploadedAndInstalled fills one node with a state of some size, has it uploaded to the object store, and has a second node
// install it from there. Builder and fetcher hold at most 64 MiB each, whatever the size. It needs some four times the size on the disk.
func TestALargeStateIsUploadedAndInstalled(t *testing.T) {
	if *largeStateMiB == 0 {
		t.Skip("writes gigabytes; run by hand: go test ./test/bounds -run LargeState -timeout 1h -v -large-state-mib 4096")
	}
	const bound = 64 << 20
	dir := benchDir(t)
	var url string
	if _, err := fmt.Fscanln(startRole(t, "jetstream", "", filepath.Join(dir, "nats"), ""), &url); err != nil || !strings.HasPrefix(url, "nats://") {
		t.Fatalf("NATS server did not start: %q %v", url, err)
	}
	startRole(t, "only-store", url, dir, "n1")
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	client, err := kv.NewClient(conn, "bounds")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	all := make([]int, *largeStateMiB<<20/stateValueBytes)
	for i := range all {
		all[i] = i
	}
	begun := time.Now()
	putState(ctx, t, client, all, 1)
	if t.Failed() {
		return
	}
	t.Logf("%d MiB written in %v", *largeStateMiB, time.Since(begun).Round(time.Second))
	admin := node.NewAdmin(conn, "quorate", "bounds")

	_ = memoryOf(t, conn, "n1") // of the writes
	quiet := settledMemory(t, conn, "n1")
	begun = time.Now()
	ref, err := admin.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	status, err := admin.Status(ctx, "n1")
	if err != nil {
		t.Fatal(err)
	}
	building := memoryOf(t, conn, "n1")
	t.Logf("uploaded: %d MiB of state, %d MiB sent, in %v: %.0f MiB/s of state", ref.Bytes>>20, status.Snapshot.Sent>>20, took.Round(time.Millisecond), rate(ref.Bytes, took))
	reportMemory(t, "builder", quiet, building, bound)

	waitLong(t, 10*time.Minute, "the log to be purged", func() bool {
		status, err = admin.Status(ctx, "n1")
		return err == nil && status.PurgedIndex > 0
	})
	startRole(t, "joining-store", url, dir, "n2")
	waitLong(t, time.Minute, "n2", func() bool { _, err := conn.Request("memory.n2", nil, time.Second); return err == nil })
	quiet = settledMemory(t, conn, "n2")
	begun = time.Now()
	if _, err := admin.ChangeMembership(ctx, node.MembershipChange{Voters: []raft.NodeID{"n1"}, Learners: []raft.NodeID{"n2"}}); err != nil {
		t.Fatal(err)
	}
	waitLong(t, 30*time.Minute, "n2 to install the snapshot", func() bool {
		status, err = admin.Status(ctx, "n2")
		return err == nil && status.Snapshot.InstalledIndex >= ref.Last.Index
	})
	installing := memoryOf(t, conn, "n2")
	t.Logf("installed %v after it was added, %v of these from the offer on: %.0f MiB/s of state", time.Since(begun).Round(time.Millisecond),
		status.Snapshot.InstallTook.Round(time.Millisecond), rate(ref.Bytes, status.Snapshot.InstallTook))
	reportMemory(t, "fetcher", quiet, installing, 2*bound) // the memory tables of a second Pebble beside it

	for range 1000 {
		i := rand.IntN(len(all))
		entry, err := client.Get(ctx, stateKey(i), kv.FromNode("n2"))
		if err != nil || !bytes.Equal(entry.Value, stateValue(i, 1)) {
			t.Fatalf("%s at n2: %d bytes, %v", stateKey(i), len(entry.Value), err)
		}
	}
}

func rate(bytes uint64, took time.Duration) float64 {
	return float64(bytes) / (1 << 20) / took.Seconds()
}

// settledMemory is what a process has in use when nothing goes on.
func settledMemory(t *testing.T, conn *nats.Conn, id string) memory {
	t.Helper()
	<-time.After(5 * time.Second) // what is measured is a span of time
	return memoryOf(t, conn, id)
}

func reportMemory(t *testing.T, who string, before, most memory, bound uint64) {
	t.Helper()
	grown := most.Live - min(most.Live, before.Live)
	t.Logf("%s: %d MiB in use before, at most %d MiB meanwhile (%d MiB more); of the operating system %d MiB, then %d MiB", who,
		before.Live>>20, most.Live>>20, grown>>20, before.Total>>20, most.Total>>20)
	if grown > bound {
		t.Errorf("the %s held %d MiB, the bound is %d", who, grown>>20, bound>>20)
	}
}
