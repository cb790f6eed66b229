package pebblestats_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"quorate/storage/pebblestats"
)

// store is a Pebble that a test opens, closes and replaces.
type store struct {
	t  *testing.T
	mu sync.Mutex // guards db
	db *pebble.DB
}

func (s *store) PebbleMetrics() *pebble.Metrics {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil
	}
	return s.db.Metrics()
}

func (s *store) open(noLog bool) {
	s.t.Helper()
	db, err := pebble.Open("", &pebble.Options{FS: vfs.NewMem(), DisableWAL: noLog, Logger: silent{}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.db = db
}

func (s *store) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return
	}
	if err := s.db.Close(); err != nil {
		s.t.Error(err)
	}
	s.db = nil
}

// fill writes a thousand keys and flushes them, so many times.
func (s *store) fill(times int) {
	s.t.Helper()
	for range times {
		for i := range 1000 {
			if err := s.db.Set(fmt.Appendf(nil, "key-%04d", i), bytes.Repeat([]byte{byte(i)}, 100), pebble.NoSync); err != nil {
				s.t.Fatal(err)
			}
		}
		if err := s.db.Flush(); err != nil {
			s.t.Fatal(err)
		}
	}
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

func observed(t *testing.T) (s *store, collect func() map[string]float64) {
	t.Helper()
	reader := sdkmetric.NewManualReader()
	s = &store{t: t}
	t.Cleanup(s.close)
	registration, err := pebblestats.Observe(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test"), "log", s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = registration.Unregister() })
	return s, func() map[string]float64 {
		t.Helper()
		var all metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &all); err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for _, scope := range all.ScopeMetrics {
			for _, m := range scope.Metrics {
				switch data := m.Data.(type) {
				case metricdata.Gauge[int64]:
					add(t, values, m.Name, data.DataPoints)
				case metricdata.Gauge[float64]:
					add(t, values, m.Name, data.DataPoints)
				case metricdata.Sum[int64]:
					if !data.IsMonotonic {
						t.Errorf("%s may go down", m.Name)
					}
					add(t, values, m.Name, data.DataPoints)
				}
			}
		}
		return values
	}
}

// add adds up what a metric says of a store, over its levels.
func add[N int64 | float64](t *testing.T, values map[string]float64, name string, points []metricdata.DataPoint[N]) {
	t.Helper()
	for _, p := range points {
		if store, _ := p.Attributes.Value("quorate.store"); store.AsString() != "log" {
			t.Errorf("%s is of store %q", name, store.AsString())
		}
		values[name] += float64(p.Value)
	}
}

func TestFiguresFollowWhatPebbleDoes(t *testing.T) {
	s, collect := observed(t)
	s.open(false)
	s.fill(3)
	got := collect()
	for name, least := range map[string]float64{
		"quorate.pebble.flushes": 3, "quorate.pebble.flush.written": 30_000, "quorate.pebble.wal.written": 300_000, "quorate.pebble.wal.files": 1,
		"quorate.pebble.memtable.size": 1, "quorate.pebble.memtables": 1, "quorate.pebble.disk.size": 30_000, "quorate.pebble.level.size": 10_000, "quorate.pebble.level.tables": 1,
		"quorate.pebble.read.amplification": 1, "quorate.pebble.write.amplification": 1.01,
	} {
		if got[name] < least {
			t.Errorf("%s is %v, want %v at least", name, got[name], least)
		}
	}
	if got["quorate.pebble.disk.size"] < got["quorate.pebble.level.size"] {
		t.Errorf("the tables are larger than what is on disk: %v", got)
	}
}

func TestWriteAmplificationWithoutWriteAheadLog(t *testing.T) {
	s, collect := observed(t)
	s.open(true)
	if got, ok := collect()["quorate.pebble.write.amplification"]; ok {
		t.Errorf("nothing came in, and that %v times", got)
	}
	s.fill(1)
	if got := collect()["quorate.pebble.write.amplification"]; got != 1 {
		t.Errorf("it is %v after one flush, want 1", got)
	}
	s.fill(1)
	if err := s.db.Compact(t.Context(), []byte("a"), []byte("z"), false); err != nil {
		t.Fatal(err)
	}
	if got := collect()["quorate.pebble.wal.written"]; got != 0 {
		t.Errorf("%v bytes were written to a write-ahead log that is not there", got)
	}
	if got := collect()["quorate.pebble.write.amplification"]; got <= 1 || got > 4 {
		t.Errorf("it is %v after a compaction", got)
	}
}

func TestCountersGoOnWhenAStoreIsReplaced(t *testing.T) {
	s, collect := observed(t)
	s.open(false)
	s.fill(3)
	before := collect()
	s.close()
	if got := collect(); len(got) != 0 {
		t.Errorf("a closed store tells %v", got)
	}
	s.open(false)
	s.fill(1)
	const name = "quorate.pebble.flushes"
	if got := collect()[name]; got != before[name]+1 {
		t.Errorf("%v flushes, want %v and one more", got, before[name])
	}
}
