package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"quorate/node/kv"
)

// What a benchmark does.
const (
	opsPut = "put"
	opsGet = "get"
	opsMix = "mix"
)

// benchLoad is the load of a benchmark.
type benchLoad struct {
	Ops      string `json:"ops"`
	Clients  int    `json:"clients"`
	Size     int    `json:"value_bytes"`
	Keys     int    `json:"keys"`
	prefix   string
	duration time.Duration
	warmup   time.Duration
}

func (l benchLoad) check() error {
	switch {
	case l.Ops != opsPut && l.Ops != opsGet && l.Ops != opsMix:
		return usagef("--ops is %q: it must be %s, %s or %s", l.Ops, opsPut, opsGet, opsMix)
	case l.Clients < 1 || l.Clients > maxBenchClients:
		return usagef("--clients %d must be from 1 to %d", l.Clients, maxBenchClients)
	case l.Keys < 1 || l.Keys > maxBenchKeys:
		return usagef("--keys %d must be from 1 to %d", l.Keys, maxBenchKeys)
	case l.Size < 0 || l.Size > maxInput:
		return usagef("--size %d must be from 0 to %d, the largest message of any NATS server", l.Size, maxInput)
	case len(l.key(l.Keys)) > kv.MaxKeyBytes:
		return usagef("--prefix has %d bytes: keys would have more than %d", len(l.prefix), kv.MaxKeyBytes)
	case l.duration <= 0 || l.warmup < 0:
		return usagef("--duration %v must be more than nothing, --warmup %v not negative", l.duration, l.warmup)
	}
	return nil
}

// maxBenchClients is how many the bench has memory for: each has histograms of its own, of some 20 KiB.
const maxBenchClients = 10_000

// maxBenchKeys is how many keys the bench keeps in memory at most.
const maxBenchKeys = 100_000_000

func (l benchLoad) key(i int) string { return fmt.Sprintf("%s%08d", l.prefix, i) }

// benchRun is one run of a benchmark.
type benchRun struct {
	load    benchLoad
	clients []*kv.Client
	timeout time.Duration
	// pool is random bytes; each value is a piece of it from a random place, which costs nothing and does not compress.
	pool []byte
	keys []string

	tallies []*benchTally // one a client goroutine
	elapsed time.Duration
}

// benchTally is what one client goroutine has measured. It belongs to that goroutine, and to the others once it has ended.
type benchTally struct {
	latency    map[string]*hdrhistogram.Histogram // by operation, in microseconds
	errors     map[string]uint64                  // by kind
	firstError error
}

// poolBytes is the room for values to begin in.
const poolBytes = 1 << 20

func newBenchRun(load benchLoad, clients []*kv.Client, timeout time.Duration) *benchRun {
	b := &benchRun{load: load, clients: clients, timeout: timeout, pool: make([]byte, poolBytes+load.Size), keys: make([]string, load.Keys)}
	_, _ = rand.Read(b.pool) // never fails, by its documentation
	for i := range b.keys {
		b.keys[i] = load.key(i)
	}
	return b
}

func (b *benchRun) value(random *mathrand.Rand) []byte {
	begin := random.IntN(poolBytes)
	return b.pool[begin : begin+b.load.Size : begin+b.load.Size]
}

// fill writes every key once.
func (b *benchRun) fill(ctx context.Context, bar *progress) error {
	again := retry{attempt: b.timeout, patience: b.timeout}
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	var next atomic.Int64
	var group sync.WaitGroup
	for i := range b.load.Clients {
		group.Go(func() {
			random := newRandom()
			client := b.clients[i%len(b.clients)]
			for k := next.Add(1) - 1; k < int64(len(b.keys)) && ctx.Err() == nil; k = next.Add(1) - 1 {
				value := b.value(random)
				err := again.do(ctx, func(ctx context.Context) error {
					_, err := client.Put(ctx, b.keys[k], value)
					return err
				})
				if err != nil {
					giveUp(err)
					return
				}
				bar.add(1)
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// measure runs the load: for the warm-up without counting, then for the duration. The context may end it before; what was
// measured until then counts.
func (b *benchRun) measure(ctx context.Context, bar *progress) {
	defer bar.end()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var counting, stopped atomic.Bool
	var group sync.WaitGroup
	for i := range b.load.Clients {
		tally := &benchTally{latency: map[string]*hdrhistogram.Histogram{}, errors: map[string]uint64{}}
		b.tallies = append(b.tallies, tally)
		group.Go(func() {
			b.loop(ctx, b.clients[i%len(b.clients)], tally, &counting, &stopped)
		})
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	wait := func(d time.Duration) {
		end := time.After(d)
		for {
			select {
			case <-second.C:
				bar.add(1)
			case <-end:
				return
			case <-ctx.Done():
				return
			}
		}
	}
	if b.load.warmup > 0 {
		wait(b.load.warmup)
	}
	counting.Store(true)
	begun := time.Now()
	wait(b.load.duration)
	b.elapsed = time.Since(begun)
	stopped.Store(true) // what is under way may end by itself, and is not counted
	group.Wait()
}

// loop is one client: a request, its answer, the next request.
func (b *benchRun) loop(ctx context.Context, client *kv.Client, tally *benchTally, counting, stopped *atomic.Bool) {
	random := newRandom()
	for ctx.Err() == nil {
		op := b.load.Ops
		if op == opsMix {
			op = opsPut
			if random.IntN(2) == 0 {
				op = opsGet
			}
		}
		key := b.keys[random.IntN(len(b.keys))]
		attempt, cancel := context.WithTimeout(ctx, b.timeout)
		begun := time.Now()
		var err error
		if op == opsPut {
			_, err = client.Put(attempt, key, b.value(random))
		} else {
			_, err = client.Get(attempt, key)
		}
		took := time.Since(begun)
		cancel()
		if stopped.Load() || ctx.Err() != nil {
			return
		}
		if counting.Load() {
			tally.count(op, took, err)
		}
		if err != nil {
			pauseAfterError(ctx)
		}
	}
}

// pauseAfterError keeps clients of a cluster that refuses at once from spinning.
func pauseAfterError(ctx context.Context) {
	const pause = 10 * time.Millisecond
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func newRandom() *mathrand.Rand {
	return mathrand.New(mathrand.NewPCG(mathrand.Uint64(), mathrand.Uint64()))
}

// The range of latencies that is told apart, in microseconds.
const (
	shortestLatency = 1
	longestLatency  = int64(10 * time.Minute / time.Microsecond)
	latencyDigits   = 2
)

func (t *benchTally) count(op string, took time.Duration, err error) {
	if err != nil {
		t.errors[errorKind(err)]++
		if t.firstError == nil {
			t.firstError = err
		}
		return
	}
	h := t.latency[op]
	if h == nil {
		h = hdrhistogram.New(shortestLatency, longestLatency, latencyDigits)
		t.latency[op] = h
	}
	_ = h.RecordValue(min(max(took.Microseconds(), shortestLatency), longestLatency)) // in range
}

func errorKind(err error) string {
	switch {
	case errors.Is(err, kv.ErrUnknownOutcome):
		return "unknown_outcome"
	case errors.Is(err, kv.ErrNotFound):
		return "not_found"
	case isTooLarge(err):
		return "too_large"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case isUnavailable(err):
		return "unavailable"
	}
	return "other"
}
