package sim

import (
	"flag"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	oneSeed   = flag.Uint64("seed", 0, "run this seed alone, or those from it on with -seeds")
	manySeeds = flag.Uint64("seeds", 0, "run seeds 1 up to this one, or from -seed on")
)

// Seeds that go test runs by default, and with -short.
const (
	defaultSeeds = 1200
	shortSeeds   = 150
)

// TestSeeds runs many small worlds. A failure prints its seed, how to run it again, and what happened last.
func TestSeeds(t *testing.T) {
	first, last := uint64(1), uint64(defaultSeeds)
	switch {
	case *manySeeds > 0:
		first, last = max(1, *oneSeed), *manySeeds
	case *oneSeed > 0:
		first, last = *oneSeed, *oneSeed
	case testing.Short():
		last = shortSeeds
	}
	if last < first {
		t.Fatalf("no seeds from %d up to %d: -seeds is the last one, not how many", first, last)
	}
	var next atomic.Uint64
	next.Store(first)
	var mu sync.Mutex
	var sum Result
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for !t.Failed() {
				seed := next.Add(1) - 1
				if seed > last {
					return
				}
				r := Run(seed)
				mu.Lock()
				sum.Steps += r.Steps
				sum.Elections += r.Elections
				sum.Committed += r.Committed
				sum.Acked += r.Acked
				sum.Reads += r.Reads
				sum.Crashes += r.Crashes
				sum.Calls += r.Calls
				sum.Retried += r.Retried
				sum.Wipes += r.Wipes
				sum.Coverage.add(&r.Coverage)
				sum.LeaseReads += r.LeaseReads
				if r.Err != nil {
					t.Errorf("seed %d: %v\n%s\nseed %d: %v\nrun it again: go test ./test/sim -run TestSeeds -seed %d",
						seed, r.Err, r.Trace, seed, r.Err, seed)
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	last = min(last, next.Load()-1) // the first failure ends the run
	t.Logf("seeds %d to %d: %d steps, %d elections, %d crashes, %d disks lost, %d entries committed, %d writes acknowledged, %d reads, %d under a lease, %d calls judged by porcupine, %d of them sent again",
		first, last, sum.Steps, sum.Elections, sum.Crashes, sum.Wipes, sum.Committed, sum.Acked, sum.Reads, sum.LeaseReads, sum.Calls, sum.Retried)
	seeds := int(last - first + 1)
	if seeds >= shortSeeds && !t.Failed() && (sum.Acked < 10*seeds || sum.Elections < seeds || sum.Reads < seeds || sum.Calls < 10*seeds || sum.Retried < seeds || sum.Wipes < seeds/20 || sum.LeaseReads < 2*seeds) {
		t.Error("so little happened that nothing was tested")
	}
	if testing.Verbose() {
		t.Logf("what happened:\n%s", &sum.Coverage)
	}
	if seeds >= leastSeeds && !t.Failed() {
		for _, what := range sum.Coverage.missing(uint64(seeds)) {
			t.Errorf("hardly ever happened in %d seeds: %s", seeds, what)
		}
	}
}

// TestSameSeedSameTrace: a failure that cannot be repeated is of no use.
func TestSameSeedSameTrace(t *testing.T) {
	for seed := uint64(1); seed <= 5; seed++ {
		first, second := Run(seed), Run(seed)
		if first.Hash != second.Hash || first.Steps != second.Steps {
			t.Errorf("seed %d: trace %x of %d steps, then %x of %d", seed, first.Hash, first.Steps, second.Hash, second.Steps)
		}
		if other := Run(seed + 1000); other.Hash == first.Hash {
			t.Errorf("seeds %d and %d have the same trace", seed, seed+1000)
		}
	}
}
