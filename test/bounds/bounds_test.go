// Package bounds measures Quorate beside what bounds it, in one run on one machine and disk: raw Pebble commits with fsync, and
// plain NATS request-reply, at the same concurrency and value size. Absolute figures say more about the machine than about
// Quorate; the ratios are what counts. Rerun it with
//
//	go test ./test/bounds -bench . -benchtime 1x -timeout 20m
package bounds

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/nats-io/nats.go"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/raft"
	"quorate/test/procs"
)

const (
	valueBytes = 256
	writers    = 256
	rounds     = 3
	span       = 3 * time.Second
)

// load runs op from that many goroutines for the span and returns operations a second and the median latency.
func load(b *testing.B, goroutines int, op func() error) (perSecond float64, p50 time.Duration) {
	b.Helper()
	var group sync.WaitGroup
	var count atomic.Int64
	latencies := make([][]time.Duration, goroutines)
	begun := time.Now()
	end := begun.Add(span)
	for i := range goroutines {
		group.Go(func() {
			for at := time.Now(); at.Before(end); {
				if err := op(); err != nil {
					b.Error(err)
					return
				}
				now := time.Now()
				latencies[i] = append(latencies[i], now.Sub(at))
				at = now
				count.Add(1)
			}
		})
	}
	group.Wait()
	all := slices.Concat(latencies...)
	slices.Sort(all)
	if len(all) == 0 {
		b.Fatal("nothing was done")
	}
	return float64(count.Load()) / time.Since(begun).Seconds(), all[len(all)/2]
}

// warmUp runs each operation for two rounds that nobody measures: files that a write-ahead log uses again, connections and caches are there
// afterwards, on both sides of the comparison. What is measured is what a server does from its first minute on.
func warmUp(b *testing.B, goroutines int, operations ...func() error) {
	b.Helper()
	for range 2 {
		for _, op := range operations {
			load(b, goroutines, op)
		}
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// rawPebble is one Pebble with a synced Set for each operation: the least that a durable write costs.
func rawPebble(b *testing.B, dir, name string) func() error {
	db, err := pebble.Open(filepath.Join(dir, name), &pebble.Options{MemTableSize: 64 << 20, Logger: quiet{}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	var n atomic.Uint64
	value := make([]byte, valueBytes)
	return func() error {
		return db.Set(binary.BigEndian.AppendUint64(nil, n.Add(1)), value, pebble.Sync)
	}
}

// rawTriple is rawPebble three times on one disk: of three callers at once, each commits to a store of its own. That is what a disk
// is asked for by three nodes that share it.
func rawTriple(b *testing.B, dir string) func() error {
	stores := make(chan func() error, 3)
	for i := range cap(stores) {
		stores <- rawPebble(b, dir, fmt.Sprintf("raw-%d", i))
	}
	return func() error {
		commit := <-stores
		defer func() { stores <- commit }()
		return commit()
	}
}

type quiet struct{}

func (quiet) Infof(string, ...any)           {}
func (quiet) Errorf(string, ...any)          {}
func (quiet) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

// BenchmarkProposals compares proposals at a leader in this process, with two followers in processes of their own, with
// raw Pebble commits. Target: at least 0.3.
func BenchmarkProposals(b *testing.B) {
	dir := benchDir(b)
	url := startServer(b)
	startFollowers(b, url, dir)
	leader := startLeader(b, url, dir)
	raw := rawPebble(b, dir, "raw")
	value := make([]byte, valueBytes)
	propose := func() error {
		_, err := leader.Propose(context.Background(), value)
		return err
	}
	warmUp(b, writers, propose, raw)
	var ratios, proposals, commits []float64
	for range b.N * rounds {
		p, p50 := load(b, writers, propose)
		r, _ := load(b, writers, raw)
		b.Logf("%d writers, %d B: %.0f proposals/s (p50 %v), %.0f raw Pebble commits/s", writers, valueBytes, p, p50, r)
		ratios, proposals, commits = append(ratios, p/r), append(proposals, p), append(commits, r)
	}
	b.ReportMetric(median(ratios), "of-raw-pebble")
	b.ReportMetric(median(proposals), "proposals/s")
	b.ReportMetric(median(commits), "commits/s")
}

// BenchmarkOneProposal is BenchmarkProposals with one writer and latencies, to see where the time of a put goes.
func BenchmarkOneProposal(b *testing.B) {
	dir := benchDir(b)
	url := startServer(b)
	startFollowers(b, url, dir)
	leader := startLeader(b, url, dir)
	raw := rawPebble(b, dir, "raw")
	value := make([]byte, valueBytes)
	propose := func() error {
		_, err := leader.Propose(context.Background(), value)
		return err
	}
	warmUp(b, 1, propose, raw)
	var ratios []float64
	for range b.N * rounds {
		_, p := load(b, 1, propose)
		_, s := load(b, 1, raw)
		b.Logf("one writer, %d B: proposal p50 %v, synced commit p50 %v", valueBytes, p, s)
		ratios = append(ratios, float64(p)/float64(s))
	}
	b.ReportMetric(median(ratios), "of-commit")
}

// BenchmarkPuts compares puts through the Go client to three serve processes with plain NATS request-reply to a process that
// answers at once. Target: at least 0.3.
func BenchmarkPuts(b *testing.B) {
	_, put, echo, _ := puts(b)
	warmUp(b, writers, put, echo)
	var ratios, rates, requests []float64
	for range b.N * rounds {
		p, p50 := load(b, writers, put)
		r, _ := load(b, writers, echo)
		b.Logf("%d writers, %d B: %.0f puts/s (p50 %v), %.0f NATS requests/s", writers, valueBytes, p, p50, r)
		ratios, rates, requests = append(ratios, p/r), append(rates, p), append(requests, r)
	}
	b.ReportMetric(median(ratios), "of-nats")
	b.ReportMetric(median(rates), "puts/s")
	b.ReportMetric(median(requests), "requests/s")
}

// BenchmarkOnePut compares the median latency of a put by one writer with what it cannot do without: two NATS round
// trips and two synced commits. Target: at most 1.
//
// A commit is measured twice: alone on the disk (of-bound-alone), and while two other stores commit to the same disk (of-bound), which is
// what it costs here: a put is committed by three stores at once, and a disk syncs for one after the other.
//
// Beside it runs a bare put (see bare_test.go): the same messages and commits without Raft. of-bare is what Quorate takes beside it,
// bare-of-bound-alone how near even that comes to the bound.
func BenchmarkOnePut(b *testing.B) {
	c, put, echo, dir := puts(b)
	raw := rawPebble(b, dir, "raw")
	triple := rawTriple(b, dir)
	bare := barePuts(b, c.URL, dir)
	warmUp(b, 1, put, echo, raw, bare)
	var ratios, alone, ofBare, bareAlone []float64
	for range b.N * rounds {
		_, p := load(b, 1, put)
		_, r := load(b, 1, echo)
		_, s := load(b, 1, raw)
		_, t := load(b, 3, triple)
		_, q := load(b, 1, bare)
		b.Logf("one writer, %d B: put p50 %v, bare put p50 %v, NATS round trip p50 %v, synced commit p50 %v alone, %v of three stores at once",
			valueBytes, p, q, r, s, t)
		ofBare = append(ofBare, float64(p)/float64(q))
		bareAlone = append(bareAlone, float64(q)/float64(2*r+2*s))
		ratios = append(ratios, float64(p)/float64(2*r+2*t))
		alone = append(alone, float64(p)/float64(2*r+2*s))
	}
	b.ReportMetric(median(ratios), "of-bound")
	b.ReportMetric(median(alone), "of-bound-alone")
	b.ReportMetric(median(ofBare), "of-bare")
	b.ReportMetric(median(bareAlone), "bare-of-bound-alone")
}

// puts starts a NATS server, three serve processes and an echo, each a process of its own.
func puts(b *testing.B) (c *procs.Cluster, put, echo func() error, dir string) {
	dir = benchDir(b)
	url := startServer(b)
	c = procs.NewClusterAt(b, procs.Build(b), dir, url, "n1", "n2", "n3")
	startRole(b, "echo", url, dir, "")
	conn, err := nats.Connect(url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(conn.Close)
	client, err := kv.NewClient(conn, c.Name)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = client.Close() })
	var n atomic.Uint64
	value := make([]byte, valueBytes)
	put = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, err := client.Put(ctx, fmt.Sprintf("key-%08d", n.Add(1)), value)
		return err
	}
	plain, err := nats.Connect(url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(plain.Close)
	echo = func() error {
		_, err := plain.Request("echo", value, 10*time.Second)
		return err
	}
	waitFor(b, "the echo", func() bool { return echo() == nil })
	return c, put, echo, dir
}

// BenchmarkFailover kills the leader's process (SIGKILL) under load, again and again, and measures the time to the next
// acknowledged write. Target: a median of at most three heartbeat intervals, at default settings.
func BenchmarkFailover(b *testing.B) {
	const kills, heartbeat = 20, 50 * time.Millisecond
	dir := benchDir(b)
	url := startServer(b)
	c := procs.NewClusterAt(b, procs.Build(b), dir, url, "n1", "n2", "n3")
	client, err := kv.NewClient(c.Conn, c.Name)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = client.Close() })
	var acknowledged atomic.Int64 // when the newest acknowledged write was sent
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				sent := time.Now()
				attempt, done := context.WithTimeout(ctx, 5*time.Second)
				_, err := client.Put(attempt, fmt.Sprintf("key-%d-%d", i, n), make([]byte, valueBytes))
				done()
				if err == nil {
					for old := acknowledged.Load(); old < sent.UnixNano() && !acknowledged.CompareAndSwap(old, sent.UnixNano()); old = acknowledged.Load() {
					}
				}
			}
		})
	}
	var gaps []time.Duration
	for range b.N * kills {
		leader := c.Leader(20 * time.Second)
		killed := time.Now()
		c.Procs[leader].Kill()
		gone := time.Now()
		// Only what was sent when the process was gone: the leader may answer until then.
		waitFor(b, "a write after the kill", func() bool { return acknowledged.Load() > gone.UnixNano() })
		gaps = append(gaps, time.Since(killed))
		c.Start(leader)
		status, err := c.Status(c.Leader(20 * time.Second))
		if err != nil {
			b.Fatal(err)
		}
		c.WaitApplied(status.CommittedIndex, 30*time.Second)
	}
	cancel()
	group.Wait()
	slices.Sort(gaps)
	p50, p95 := gaps[len(gaps)/2], gaps[(len(gaps)*95+99)/100-1] // by nearest rank: of 20, the 19th
	b.Logf("SIGKILL of the leader, %d times: next acknowledged write after %v (median), %v (p95), %v (max)", len(gaps), p50, p95, gaps[len(gaps)-1])
	b.ReportMetric(float64(p50)/float64(heartbeat), "heartbeats-p50")
	b.ReportMetric(float64(p95)/float64(heartbeat), "heartbeats-p95")
}

func waitFor(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	waitLong(tb, 30*time.Second, what, condition)
}

func waitLong(tb testing.TB, patience time.Duration, what string, condition func() bool) {
	tb.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(max(time.Millisecond, patience/10_000))
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatalf("timed out waiting for %s", what)
		}
	}
}

func startLeader(b *testing.B, url, dir string) *node.Node {
	b.Helper()
	n, err := startNode("n1", url, dir, time.Second)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = n.Close(context.Background()) })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := n.Wait(ctx, func(s node.Status) bool { return s.Serving }); err != nil {
		b.Fatal(err)
	}
	return n
}

// startNode starts a member of the benchmark's cluster. n1 is the least patient, so it leads; all are patient enough for a disk that is slow for
// a moment.
func startNode(id, url, dir string, patience time.Duration) (*node.Node, error) {
	return node.Start(context.Background(), node.Config{
		Cluster: "bounds", ID: raft.NodeID(id), Members: []raft.NodeID{"n1", "n2", "n3"},
		Dir: filepath.Join(dir, id), URL: url, HeartbeatInterval: min(50*time.Millisecond, patience/4), ElectionTimeout: patience,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}, sink{})
}

func startFollowers(b *testing.B, url, dir string) {
	startRole(b, "node", url, dir, "n2")
	startRole(b, "node", url, dir, "n3")
}

func benchDir(b testing.TB) string {
	b.Helper()
	dir := b.TempDir()
	kind, err := filesystem(dir)
	if err != nil {
		b.Fatal(err)
	}
	if strings.Contains(kind, "tmpfs") || strings.Contains(kind, "ramfs") {
		b.Fatalf("%s is on %s, which has no disk to sync to: set TMPDIR to a directory on a disk", dir, kind)
	}
	b.Logf("filesystem of %s: %s", dir, kind)
	return dir
}
