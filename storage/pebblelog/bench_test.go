package pebblelog_test

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/pebblelog"
)

// BenchmarkWrite writes entries of 256 bytes in batches, to memory (what the processor does) and to a disk, and waits for each batch or
// only for the last. Its ns/entry is what counts.
func BenchmarkWrite(b *testing.B) {
	for _, disk := range []string{"memory", "disk"} {
		for _, n := range []uint64{1, 64, 256} {
			for _, waits := range []bool{true, false} {
				name := fmt.Sprintf("%s/batch=%d/wait=%v", disk, n, waits)
				b.Run(name, func(b *testing.B) { benchmarkWrite(b, disk == "memory", n, waits) })
			}
		}
	}
}

func benchmarkWrite(b *testing.B, memory bool, n uint64, waits bool) {
	options, dir := pebblelog.Options{Logger: small(nil).Logger, FS: vfs.Default}, b.TempDir()
	if memory {
		options.FS, dir = vfs.NewMem(), "log"
	}
	log := mustOpen(b, dir, options)
	commits := make(chan storage.Commit, 256)
	waited := make(chan error, 1)
	go func() { // the sync waiter
		var failed error
		for commit := range commits {
			if err := commit.Wait(); err != nil {
				failed = err
			}
		}
		waited <- failed
	}()
	payload := make([]byte, 256)
	batch := make([]raft.Entry, n)
	last, purged := uint64(0), uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for i := range batch {
			last++
			batch[i] = raft.Entry{ID: raft.LogID{Term: 1, Index: last}, Kind: raft.EntryCommand, Time: 1.7e18, Data: payload}
			if err := storage.SealEntry(&batch[i]); err != nil {
				b.Fatal(err)
			}
		}
		if last-purged > 2_000_000 { // a benchmark must not fill memory
			purged = last - 100_000
			if err := log.Purge(raft.LogID{Term: 1, Index: purged}); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		commit, err := log.Write(storage.Write{Append: batch})
		if err != nil {
			b.Fatal(err)
		}
		if !waits {
			commits <- commit
		} else if err := commit.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	close(commits)
	if err := <-waited; err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(uint64(b.N)*n), "ns/entry")
}

// BenchmarkEntries reads what a worker sends, from the window and from disk.
func BenchmarkEntries(b *testing.B) {
	for _, where := range []string{"window", "disk"} {
		b.Run(where, func(b *testing.B) {
			options := pebblelog.Options{Logger: small(nil).Logger, FS: vfs.NewMem()}
			if where == "disk" {
				options.WindowBytes = 1
			}
			log := mustOpen(b, "log", options)
			for lo := uint64(1); lo < 10_000; lo += 100 {
				mustWrite(b, log, storage.Write{Append: entries(b, 1, lo, lo+99, 256)})
			}
			b.ReportAllocs()
			lo := uint64(1)
			for b.Loop() {
				list, err := log.Entries(nil, lo, lo+256, 1<<20)
				if err != nil || len(list) != 256 {
					b.Fatal(len(list), err)
				}
				lo = lo%9000 + 256
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*256), "ns/entry")
		})
	}
}
