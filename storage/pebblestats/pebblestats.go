// Package pebblestats makes OpenTelemetry metrics of Pebble's own figures.
package pebblestats

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/cockroachdb/pebble/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Source is a store that is kept in Pebble.
type Source interface {
	// PebbleMetrics returns Pebble's figures, or nil when it is closed. It is safe from several goroutines.
	PebbleMetrics() *pebble.Metrics
}

// figure is one of Pebble's figures: an instrument, and how it is read.
type figure struct {
	name, unit, description string
	// counts: it only grows, as long as the store is open.
	counts bool
	read   func(*pebble.Metrics) int64
}

var figures = [...]figure{
	{"quorate.pebble.disk.size", "By", "Bytes that the store has on disk.", false, func(m *pebble.Metrics) int64 { return int64(m.DiskSpaceUsage()) }},
	{"quorate.pebble.memtable.size", "By", "Bytes in memory tables.", false, func(m *pebble.Metrics) int64 { return int64(m.MemTable.Size) }},
	{"quorate.pebble.cache.size", "By", "Bytes in the block cache.", false, func(m *pebble.Metrics) int64 { return m.BlockCache.Size }},
	{"quorate.pebble.cache.hits", "{block}", "Blocks that were found in the cache.", true, func(m *pebble.Metrics) int64 { return m.BlockCache.Hits }},
	{"quorate.pebble.cache.misses", "{block}", "Blocks that were not, and were read from disk.", true, func(m *pebble.Metrics) int64 { return m.BlockCache.Misses }},
	{"quorate.pebble.compactions", "{compaction}", "Compactions that have ended.", true, func(m *pebble.Metrics) int64 { return m.Compact.Count }},
	{"quorate.pebble.compactions.running", "{compaction}", "Compactions under way.", false, func(m *pebble.Metrics) int64 { return m.Compact.NumInProgress }},
	{"quorate.pebble.compaction.debt", "By", "Bytes that must be compacted for the store to be in good shape: it should not grow for long.", false, func(m *pebble.Metrics) int64 { return int64(m.Compact.EstimatedDebt) }},
	{"quorate.pebble.flushes", "{flush}", "Memory tables that became tables on disk.", true, func(m *pebble.Metrics) int64 { return m.Flush.Count }},
	{"quorate.pebble.wal.size", "By", "Bytes of write-ahead log that are needed.", false, func(m *pebble.Metrics) int64 { return int64(m.WAL.Size) }},
	{"quorate.pebble.wal.files", "{file}", "Write-ahead log files that are needed.", false, func(m *pebble.Metrics) int64 { return m.WAL.Files }},
	{"quorate.pebble.wal.written", "By", "Bytes that were written to write-ahead logs.", true, func(m *pebble.Metrics) int64 { return int64(m.WAL.BytesWritten) }},
	{"quorate.pebble.read.amplification", "{table}", "Tables that a read may have to look into.", false, func(m *pebble.Metrics) int64 { return int64(m.ReadAmp()) }},
	{"quorate.pebble.tombstones", "{key}", "Deletions that are not compacted away.", false, func(m *pebble.Metrics) int64 { return int64(m.Keys.TombstoneCount) }},
}

// Observe has the figures of a store read at each collection, under the attribute quorate.store, until they are unregistered. A store that is closed
// has none.
func Observe(meter metric.Meter, store string, source Source) (metric.Registration, error) {
	name := attribute.String("quorate.store", store)
	attributes := metric.WithAttributeSet(attribute.NewSet(name))
	gauges, counters := map[int]metric.Int64ObservableGauge{}, map[int]metric.Int64ObservableCounter{}
	var all []metric.Observable
	var failed error
	for i, f := range figures {
		if f.counts {
			c, err := meter.Int64ObservableCounter(f.name, metric.WithUnit(f.unit), metric.WithDescription(f.description))
			counters[i], all, failed = c, append(all, c), errors.Join(failed, err)
			continue
		}
		g, err := meter.Int64ObservableGauge(f.name, metric.WithUnit(f.unit), metric.WithDescription(f.description))
		gauges[i], all, failed = g, append(all, g), errors.Join(failed, err)
	}
	levels, err := meter.Int64ObservableGauge("quorate.pebble.level.size", metric.WithUnit("By"), metric.WithDescription("Bytes of tables, by level."))
	if failed = errors.Join(failed, err); failed != nil {
		return nil, fmt.Errorf("metrics of the store of the %s: %w", store, failed)
	}
	return meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		m := source.PebbleMetrics()
		if m == nil {
			return nil
		}
		for i, g := range gauges {
			to.ObserveInt64(g, figures[i].read(m), attributes)
		}
		for i, c := range counters {
			to.ObserveInt64(c, figures[i].read(m), attributes)
		}
		for i := range m.Levels {
			to.ObserveInt64(levels, int64(m.Levels[i].TablesSize), metric.WithAttributeSet(attribute.NewSet(name, attribute.String("quorate.level", strconv.Itoa(i)))))
		}
		return nil
	}, append(all, levels)...)
}
