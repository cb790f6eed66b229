package pebblelog

import (
	"context"
	"sync"
)

// reclaimer gives the disk space of purged entries back. Pebble does so by itself, in its own time: while much is written, ten times of what
// is kept stays on disk. So each purge is followed by a compaction of what it deleted; that reads the purged tables once and writes next
// to nothing.
type reclaimer struct {
	group sync.WaitGroup

	mu      sync.Mutex // guards what follows
	cancel  context.CancelFunc
	running bool
	again   bool // something was purged since the compaction that runs began
	closed  bool
}

// start has compact run soon, by a goroutine of its own: one at a time, and once more for all that ask meanwhile.
func (r *reclaimer) start(compact func(context.Context)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.again = true
	if r.running {
		return
	}
	r.running = true
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.group.Go(func() {
		defer cancel()
		for r.next() {
			compact(ctx)
		}
	})
}

func (r *reclaimer) next() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = r.again && !r.closed
	r.again = false
	return r.running
}

// close ends what runs and waits for it.
func (r *reclaimer) close() {
	r.mu.Lock()
	r.closed = true
	if r.running {
		r.cancel()
	}
	r.mu.Unlock()
	r.group.Wait()
}

// reclaim compacts what is purged now. It does not enter the store, which would make others wait; the store waits for it before it closes.
func (l *Log) reclaim(ctx context.Context) {
	if l.db.fault.Get() != nil {
		return
	}
	err := l.db.pebble.Compact(ctx, l.entryKey(0), l.entryKey(l.Purged().Index+1), false)
	if err != nil && ctx.Err() == nil {
		// Nothing is lost by that: what is wrong with the disk is found where it matters.
		l.db.options.Logger.Warn("cannot give the space of purged entries back yet", "error", err)
	}
}
