package telemetry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// BatchOptions bound what a Batcher keeps. The zero value of a field means its default.
type BatchOptions struct {
	// Delay is how long a span waits at most for others. Default: 5 s.
	Delay time.Duration
	// Timeout of one export. Default: 30 s.
	Timeout time.Duration
	// Queue is how many spans wait at most; more are dropped. Default: 2048.
	Queue int
	// Batch is how many spans are exported at once. Default: 512, or Queue if that is less.
	Batch int
}

// Batcher is a span processor that exports finished spans in batches, in a goroutine that is woken once for each batch. That of the OpenTelemetry
// SDK wakes for each span, which costs more than the span does: one write ends more than a dozen spans, one after the other on three nodes.
//
// It never blocks who ends a span, and is safe from several goroutines. What goes wrong is told to the error handler of package otel.
type Batcher struct {
	exporter sdktrace.SpanExporter
	o        BatchOptions
	full     chan struct{} // has room for one: a batch waits
	late     *time.Timer   // runs from the first span of a batch
	stopping chan struct{} // is closed by Shutdown
	turn     chan struct{} // holds one while somebody exports
	cancel   context.CancelFunc
	group    sync.WaitGroup

	mu      sync.Mutex // guards all below
	waiting []sdktrace.ReadOnlySpan
	dropped int       // since this was told last
	toldAt  time.Time // when that was
	stopped bool
}

// tellInterval is how long it is not told again that spans are dropped, which they may be all the time.
const tellInterval = time.Minute

// NewBatcher starts a Batcher, which Shutdown ends, with the exporter.
func NewBatcher(exporter sdktrace.SpanExporter, o BatchOptions) *Batcher {
	if o.Delay <= 0 {
		o.Delay = 5 * time.Second
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Queue <= 0 {
		o.Queue = 2048
	}
	if o.Batch <= 0 {
		o.Batch = 512
	}
	o.Batch = min(o.Batch, o.Queue)
	ctx, cancel := context.WithCancel(context.Background())
	b := &Batcher{
		exporter: exporter, o: o, cancel: cancel,
		full: make(chan struct{}, 1), late: time.NewTimer(o.Delay), stopping: make(chan struct{}), turn: make(chan struct{}, 1),
	}
	b.late.Stop()
	b.group.Go(func() { b.run(ctx) })
	return b
}

// OnStart does nothing.
func (b *Batcher) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd keeps a span for the next batch, or drops it if too many wait.
func (b *Batcher) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.stopped:
	case len(b.waiting) == b.o.Queue:
		b.dropped++
	default:
		b.waiting = append(b.waiting, s)
		if len(b.waiting) == 1 {
			b.late.Reset(b.o.Delay)
		}
		if len(b.waiting) == b.o.Batch {
			select {
			case b.full <- struct{}{}:
			default:
			}
		}
	}
}

func (b *Batcher) run(ctx context.Context) {
	defer b.late.Stop()
	for {
		select {
		case <-b.stopping:
			return
		case <-b.full:
		case <-b.late.C:
		}
		if err := b.ForceFlush(ctx); err != nil {
			otel.Handle(err)
		}
	}
}

// ForceFlush exports what waits now. It blocks until that is done or the context ends. Errors: the exporter's, which has tried again as its
// protocol says; these spans are lost. Or that spans were dropped, once a minute at most.
func (b *Batcher) ForceFlush(ctx context.Context) error {
	if err := ctx.Err(); err != nil { // what waits, goes on waiting
		return fmt.Errorf("export spans: %w", err)
	}
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return fmt.Errorf("export spans: %w", ctx.Err())
	}
	waiting, dropped := b.take()
	var errs []error
	if dropped > 0 {
		errs = append(errs, fmt.Errorf("export spans: %d were dropped, since %d waited already: sample fewer, or let more wait (OTEL_BSP_MAX_QUEUE_SIZE, for what the OTEL_* variables export)", dropped, b.o.Queue))
	}
	for len(waiting) > 0 && ctx.Err() == nil {
		n := min(len(waiting), b.o.Batch)
		errs = append(errs, b.export(ctx, waiting[:n]))
		waiting = waiting[n:]
	}
	if len(waiting) > 0 {
		errs = append(errs, fmt.Errorf("export spans: %d are lost: %w", len(waiting), ctx.Err()))
	}
	return errors.Join(errs...)
}

func (b *Batcher) take() (waiting []sdktrace.ReadOnlySpan, dropped int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	waiting, b.waiting = b.waiting, make([]sdktrace.ReadOnlySpan, 0, len(b.waiting))
	if now := time.Now(); b.dropped > 0 && (b.stopped || now.Sub(b.toldAt) >= tellInterval) {
		dropped, b.dropped, b.toldAt = b.dropped, 0, now
	}
	return waiting, dropped
}

func (b *Batcher) export(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithTimeout(ctx, b.o.Timeout)
	defer cancel()
	if err := b.exporter.ExportSpans(ctx, spans); err != nil {
		return fmt.Errorf("export %d spans: %w", len(spans), err)
	}
	return nil
}

// Shutdown exports what waits, and ends the exporter and the goroutine. It blocks until that is done or the context ends. A second call does
// nothing.
func (b *Batcher) Shutdown(ctx context.Context) error {
	b.mu.Lock()
	stopped := b.stopped
	b.stopped = true
	b.mu.Unlock()
	if stopped {
		return nil
	}
	close(b.stopping)
	defer b.group.Wait()
	defer b.cancel() // of an export that is still under way because the context has ended
	return errors.Join(b.ForceFlush(ctx), b.exporter.Shutdown(ctx))
}

// batchOptions are those of OTEL_BSP_*, in milliseconds and spans.
func batchOptions() (o BatchOptions, err error) {
	read := func(name string) (value int) {
		text := os.Getenv(name)
		if text == "" || err != nil {
			return 0
		}
		if value, err = strconv.Atoi(text); err != nil || value <= 0 {
			err = fmt.Errorf("%s is %q: it must be a whole number above zero", name, text)
		}
		return value
	}
	o = BatchOptions{
		Delay:   time.Duration(read("OTEL_BSP_SCHEDULE_DELAY")) * time.Millisecond,
		Timeout: time.Duration(read("OTEL_BSP_EXPORT_TIMEOUT")) * time.Millisecond,
		Queue:   read("OTEL_BSP_MAX_QUEUE_SIZE"),
		Batch:   read("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
	}
	return o, err
}
