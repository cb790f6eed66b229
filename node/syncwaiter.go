package node

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"

	"quorate/storage"
)

// syncItem is a write that RaftCore made, on its way to disk.
type syncItem struct {
	seq    uint64
	commit storage.Commit
	// began is when it was made, entries how many it appended; trace is the first of them that is sampled.
	began   time.Time
	entries int
	trace   trace.SpanContext
}

// syncWaiter waits for fsync of what RaftCore wrote and reports "durable up to". Writes become durable in order, so
// only the newest number matters: durable holds one value, which a newer one replaces.
//
// A failed fsync is final. What was written may or may not be on disk, and a second fsync that succeeds says nothing
// about the first: the node stops.
type syncWaiter struct {
	items   <-chan syncItem
	durable chan timed[uint64]
	fail    func(error)
	metrics *metrics
}

func (w *syncWaiter) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case item := <-w.items:
			if err := item.commit.Wait(); err != nil {
				w.fail(fmt.Errorf("sync the log: %w", err))
				return
			}
			replace(w.durable, timed[uint64]{item.seq, time.Now()})
			w.metrics.durable(item)
		}
	}
}

// replace puts v into a channel that holds one value, in place of an older one. It has one caller at a time.
func replace[T any](ch chan T, v T) {
	for {
		select {
		case ch <- v:
			return
		default:
		}
		select {
		case <-ch:
		default:
		}
	}
}
