package pebblestats_test

import (
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"quorate/storage/pebblestats"
)

type source struct{ db *pebble.DB }

func (s *source) PebbleMetrics() *pebble.Metrics {
	if s.db == nil {
		return nil
	}
	return s.db.Metrics()
}

func TestFiguresFollowTheStoreUntilItIsClosed(t *testing.T) {
	db, err := pebble.Open("", &pebble.Options{FS: vfs.NewMem(), Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	reader := sdkmetric.NewManualReader()
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	s := &source{db}
	registered, err := pebblestats.Observe(meters.Meter("test"), "log", s)
	if err != nil {
		t.Fatal(err)
	}
	if got := collect(t, reader)["quorate.pebble.flushes"]; got != 0 {
		t.Errorf("%d flushes of a store that is new", got)
	}
	for range 3 {
		if err := db.Set([]byte("key"), make([]byte, 1<<10), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	got := collect(t, reader)
	if got["quorate.pebble.flushes"] != 3 || got["quorate.pebble.wal.written"] < 3<<10 || got["quorate.pebble.level.size"] == 0 || got["quorate.pebble.disk.size"] < got["quorate.pebble.level.size"] {
		t.Errorf("after three flushes: %v", got)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s.db = nil
	if got := collect(t, reader); len(got) > 0 {
		t.Errorf("a store that is closed has %v", got)
	}
	if err := registered.Unregister(); err != nil {
		t.Fatal(err)
	}
}

// collect sums up the figures by name, and wants each to say whose it is.
func collect(t *testing.T, reader *sdkmetric.ManualReader) map[string]int64 {
	t.Helper()
	var data metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	values := map[string]int64{}
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			var points []metricdata.DataPoint[int64]
			switch d := m.Data.(type) {
			case metricdata.Gauge[int64]:
				points = d.DataPoints
			case metricdata.Sum[int64]:
				points = d.DataPoints
			default:
				t.Fatalf("%s is a %T", m.Name, d)
			}
			for _, p := range points {
				if !slices.Contains(p.Attributes.ToSlice(), attribute.String("quorate.store", "log")) {
					t.Errorf("%s of %v", m.Name, p.Attributes.ToSlice())
				}
				values[m.Name] += p.Value
			}
		}
	}
	return values
}

type quiet struct{}

func (quiet) Infof(string, ...any)      {}
func (quiet) Errorf(string, ...any)     {}
func (quiet) Fatalf(f string, a ...any) { panic(f) }
