package telemetry_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"quorate/telemetry"
)

// taker is an exporter that keeps what it is given.
type taker struct {
	mu      sync.Mutex // guards all below
	batches [][]string
	err     error
	ended   bool
	hold    chan struct{} // if not nil, exports wait until it is closed or their context ends
}

func (k *taker) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if k.hold != nil {
		select {
		case <-k.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var names []string
	for _, s := range spans {
		names = append(names, s.Name())
	}
	k.batches = append(k.batches, names)
	return k.err
}

func (k *taker) Shutdown(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = true
	return nil
}

func (k *taker) taken() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return fmt.Sprint(k.batches)
}

func tracerOf(b *telemetry.Batcher) trace.Tracer {
	return sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(b)).Tracer("test")
}

func endSpans(tracer trace.Tracer, names ...string) {
	for _, name := range names {
		_, span := tracer.Start(context.Background(), name)
		span.End()
	}
}

func TestBatcherExportsWhenABatchIsFullOrLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exporter := &taker{}
		b := telemetry.NewBatcher(exporter, telemetry.BatchOptions{Delay: time.Second, Batch: 3})
		tracer := tracerOf(b)
		see := func(want string) {
			t.Helper()
			synctest.Wait()
			if got := exporter.taken(); got != want {
				t.Errorf("exported %s, want %s", got, want)
			}
		}
		time.Sleep(time.Hour) // of the bubble's clock, as all below: when spans are exported is what is tested, and the test takes none of it
		endSpans(tracer, "a", "b")
		time.Sleep(time.Second - time.Nanosecond)
		see("[]")
		time.Sleep(time.Nanosecond)
		see("[[a b]]")
		endSpans(tracer, "c", "d", "e")
		see("[[a b] [c d e]]") // the clock of a bubble stands while anybody can run
		endSpans(tracer, "f")
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.ForceFlush(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("flush in a context that has ended: %v", err)
		}
		if err := b.ForceFlush(t.Context()); err != nil {
			t.Error(err)
		}
		see("[[a b] [c d e] [f]]")
		endSpans(tracer, "g")
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		endSpans(tracer, "h")
		see("[[a b] [c d e] [f] [g]]")
		if err := b.Shutdown(t.Context()); err != nil || !exporter.ended {
			t.Errorf("second shutdown: %v; exporter ended: %v", err, exporter.ended)
		}
	})
}

func TestBatcherKeepsOnlySampledSpans(t *testing.T) {
	exporter := &taker{}
	b := telemetry.NewBatcher(exporter, telemetry.BatchOptions{})
	recordOnly := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(b), sdktrace.WithSampler(sampler{})).Tracer("test")
	endSpans(recordOnly, "recorded")
	if err := b.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if got := exporter.taken(); got != "[]" {
		t.Errorf("exported %s, want nothing", got)
	}
}

// sampler has everything recorded, and nothing exported.
type sampler struct{}

func (sampler) ShouldSample(sdktrace.SamplingParameters) sdktrace.SamplingResult {
	return sdktrace.SamplingResult{Decision: sdktrace.RecordOnly}
}
func (sampler) Description() string { return "record only" }

// handled has the errors of package otel's handler kept, until the end of the test.
func handled(t *testing.T) func() string {
	var mu sync.Mutex
	var errs []string
	before := otel.GetErrorHandler()
	t.Cleanup(func() { otel.SetErrorHandler(before) })
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err.Error())
	}))
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(errs, "; ")
	}
}

func TestBatcherDropsWhatIsTooMuchAndSaysSoOnceAMinute(t *testing.T) {
	told := handled(t)
	synctest.Test(t, func(t *testing.T) {
		exporter := &taker{}
		b := telemetry.NewBatcher(exporter, telemetry.BatchOptions{Queue: 2})
		tracer := tracerOf(b)
		dropThree := func() {
			synctest.Wait()
			exporter.hold = make(chan struct{})
			endSpans(tracer, "a", "b")
			synctest.Wait() // these are being exported
			endSpans(tracer, "c", "d", "e", "f", "g")
			close(exporter.hold)
			synctest.Wait()
		}
		dropThree()
		if got := exporter.taken(); got != "[[a b] [c d]]" {
			t.Errorf("exported %s", got)
		}
		if got := told(); strings.Count(got, "3 were dropped") != 1 || !strings.Contains(got, "OTEL_BSP_MAX_QUEUE_SIZE") {
			t.Errorf("told %q, want that three spans were dropped, and what to do", got)
		}
		dropThree()
		dropThree()
		if got := told(); strings.Count(got, "dropped") != 1 {
			t.Errorf("told %q within a minute, want nothing more", got)
		}
		time.Sleep(time.Minute) // of the bubble's clock
		dropThree()
		if got := told(); strings.Count(got, "6 were dropped") != 1 {
			t.Errorf("told %q, want that six more were dropped", got)
		}
		if err := b.Shutdown(t.Context()); err == nil || !strings.Contains(err.Error(), "3 were dropped") {
			t.Errorf("the end tells %v, want that the last three were dropped", err)
		}
	})
}

func TestBatcherTellsWhatAnExporterCannotDo(t *testing.T) {
	told := handled(t)
	synctest.Test(t, func(t *testing.T) {
		exporter := &taker{err: errors.New("no backend")}
		b := telemetry.NewBatcher(exporter, telemetry.BatchOptions{Batch: 1})
		endSpans(tracerOf(b), "a")
		synctest.Wait()
		endSpans(tracerOf(b), "b")
		synctest.Wait()
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if got := exporter.taken(); got != "[[a] [b]]" { // it goes on
			t.Errorf("exported %s", got)
		}
	})
	if got := told(); strings.Count(got, "no backend") != 2 {
		t.Errorf("told %q, want the exporter's error twice", got)
	}
}

func TestBatcherThatIsShutDownGivesUpAnExportThatHangs(t *testing.T) {
	handled(t)
	synctest.Test(t, func(t *testing.T) {
		exporter := &taker{hold: make(chan struct{})}
		b := telemetry.NewBatcher(exporter, telemetry.BatchOptions{Batch: 1})
		endSpans(tracerOf(b), "a")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || !exporter.ended {
			t.Errorf("shutdown says %v, the exporter ended: %v", err, exporter.ended)
		}
	})
}

func TestABatchOptionThatMakesNoSenseIsAnError(t *testing.T) {
	for _, test := range [][2]string{{"OTEL_BSP_SCHEDULE_DELAY", "5s"}, {"OTEL_BSP_EXPORT_TIMEOUT", "-1"}, {"OTEL_BSP_MAX_QUEUE_SIZE", "0"}, {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many"}} {
		t.Run(test[0], func(t *testing.T) {
			t.Setenv(test[0], test[1])
			if _, err := telemetry.Setup(t.Context(), telemetry.SetupOptions{}); err == nil || !strings.Contains(err.Error(), test[0]) || !strings.Contains(err.Error(), test[1]) {
				t.Errorf("%s=%s gives %v, want an error that names both", test[0], test[1], err)
			}
		})
	}
}
