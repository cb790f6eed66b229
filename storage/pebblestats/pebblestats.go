// Package pebblestats makes OpenTelemetry metrics of Pebble's own figures.
package pebblestats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

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
	// counts: it only grows.
	counts bool
	read   func(*pebble.Metrics) int64
}

var figures = [...]figure{
	{"quorate.pebble.disk.size", "By", "Bytes that the store has on disk.", false, func(m *pebble.Metrics) int64 { return int64(m.DiskSpaceUsage()) }},
	{"quorate.pebble.memtable.size", "By", "Bytes in memory tables.", false, func(m *pebble.Metrics) int64 { return int64(m.MemTable.Size) }},
	{"quorate.pebble.memtables", "{memtable}", "Memory tables that are not on disk yet.", false, func(m *pebble.Metrics) int64 { return m.MemTable.Count }},
	{"quorate.pebble.cache.size", "By", "Bytes in the block cache.", false, func(m *pebble.Metrics) int64 { return m.BlockCache.Size }},
	{"quorate.pebble.cache.hits", "{block}", "Blocks that were found in the cache.", true, func(m *pebble.Metrics) int64 { return m.BlockCache.Hits }},
	{"quorate.pebble.cache.misses", "{block}", "Blocks that were not, and were read from disk.", true, func(m *pebble.Metrics) int64 { return m.BlockCache.Misses }},
	{"quorate.pebble.compactions", "{compaction}", "Compactions that have ended.", true, func(m *pebble.Metrics) int64 { return m.Compact.Count }},
	{"quorate.pebble.compactions.running", "{compaction}", "Compactions under way.", false, func(m *pebble.Metrics) int64 { return m.Compact.NumInProgress }},
	{"quorate.pebble.compaction.debt", "By", "Bytes that must be compacted for the store to be in good shape: it should not grow for long.", false, func(m *pebble.Metrics) int64 { return int64(m.Compact.EstimatedDebt) }},
	{"quorate.pebble.compaction.read", "By", "Bytes that compactions have read.", true, func(m *pebble.Metrics) int64 {
		return sum(m, func(l *pebble.LevelMetrics) uint64 { return l.TableBytesRead })
	}},
	{"quorate.pebble.compaction.written", "By", "Bytes that compactions have written.", true, func(m *pebble.Metrics) int64 {
		return sum(m, func(l *pebble.LevelMetrics) uint64 { return l.TableBytesCompacted })
	}},
	{"quorate.pebble.flush.written", "By", "Bytes of memory tables that were written to disk.", true, func(m *pebble.Metrics) int64 {
		return sum(m, func(l *pebble.LevelMetrics) uint64 { return l.TableBytesFlushed })
	}},
	{"quorate.pebble.ingest.written", "By", "Bytes of tables that were taken over as they are: those of a snapshot.", true, func(m *pebble.Metrics) int64 {
		return sum(m, func(l *pebble.LevelMetrics) uint64 { return l.TableBytesIngested })
	}},
	{"quorate.pebble.flushes", "{flush}", "Memory tables that became tables on disk.", true, func(m *pebble.Metrics) int64 { return m.Flush.Count }},
	{"quorate.pebble.wal.size", "By", "Bytes of write-ahead log that are needed.", false, func(m *pebble.Metrics) int64 { return int64(m.WAL.Size) }},
	{"quorate.pebble.wal.files", "{file}", "Write-ahead log files that are needed.", false, func(m *pebble.Metrics) int64 { return m.WAL.Files }},
	{"quorate.pebble.wal.written", "By", "Bytes that were written to write-ahead logs.", true, walWritten},
	{"quorate.pebble.read.amplification", "{table}", "Tables that a read may have to look into.", false, func(m *pebble.Metrics) int64 { return int64(m.ReadAmp()) }},
	{"quorate.pebble.tombstones", "{key}", "Deletions that are not compacted away.", false, func(m *pebble.Metrics) int64 { return int64(m.Keys.TombstoneCount) }},
}

func sum(m *pebble.Metrics, of func(*pebble.LevelMetrics) uint64) (total int64) {
	for i := range m.Levels {
		total += int64(of(&m.Levels[i]))
	}
	return total
}

// walWritten is zero for a store without a write-ahead log: what Pebble tells then is what was flushed, since that is what it takes to have come
// in.
func walWritten(m *pebble.Metrics) int64 {
	if m.WAL.BytesIn == 0 {
		return 0
	}
	return int64(m.WAL.BytesWritten)
}

// writeAmplification is how many bytes went to the disk for each that came in. It is false while none came in.
func writeAmplification(m *pebble.Metrics) (float64, bool) {
	total := m.Total() // with a write-ahead log, even if there is none
	total.TableBytesFlushed -= m.WAL.BytesWritten - uint64(walWritten(m))
	return total.WriteAmp(), total.TableBytesIn > 0
}

// counter goes on when the store begins anew, as a state does that a snapshot has replaced.
type counter struct {
	metric.Int64ObservableCounter
	before, last int64
}

func (c *counter) total(now int64) int64 {
	if now < c.last {
		c.before += c.last
	}
	c.last = now
	return c.before + now
}

// Observe has the figures of a store read at each collection, under the attribute quorate.store, until they are unregistered. A store that is closed
// has none.
func Observe(meter metric.Meter, store string, source Source) (metric.Registration, error) {
	name := attribute.String("quorate.store", store)
	attributes := metric.WithAttributeSet(attribute.NewSet(name))
	gauges, counters := map[int]metric.Int64ObservableGauge{}, map[int]*counter{}
	var all []metric.Observable
	var failed error
	for i, f := range figures {
		if f.counts {
			c, err := meter.Int64ObservableCounter(f.name, metric.WithUnit(f.unit), metric.WithDescription(f.description))
			counters[i], all, failed = &counter{Int64ObservableCounter: c}, append(all, c), errors.Join(failed, err)
			continue
		}
		g, err := meter.Int64ObservableGauge(f.name, metric.WithUnit(f.unit), metric.WithDescription(f.description))
		gauges[i], all, failed = g, append(all, g), errors.Join(failed, err)
	}
	levels, err1 := meter.Int64ObservableGauge("quorate.pebble.level.size", metric.WithUnit("By"), metric.WithDescription("Bytes of tables, by level."))
	tables, err2 := meter.Int64ObservableGauge("quorate.pebble.level.tables", metric.WithUnit("{table}"), metric.WithDescription("Tables, by level."))
	amplification, err3 := meter.Float64ObservableGauge("quorate.pebble.write.amplification", metric.WithUnit("1"), metric.WithDescription("Bytes that went to disk for each that came in, since the store was opened."))
	if failed = errors.Join(failed, err1, err2, err3); failed != nil {
		return nil, fmt.Errorf("metrics of the store of the %s: %w", store, failed)
	}
	// guards counters, which all readers of metrics share, and keeps an older answer of the store from following a newer one.
	var mu sync.Mutex
	return meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		mu.Lock()
		defer mu.Unlock()
		m := source.PebbleMetrics()
		if m == nil {
			return nil
		}
		for i, g := range gauges {
			to.ObserveInt64(g, figures[i].read(m), attributes)
		}
		for i, c := range counters {
			to.ObserveInt64(c.Int64ObservableCounter, c.total(figures[i].read(m)), attributes)
		}
		if a, ok := writeAmplification(m); ok {
			to.ObserveFloat64(amplification, a, attributes)
		}
		for i := range m.Levels {
			level := metric.WithAttributeSet(attribute.NewSet(name, attribute.String("quorate.level", strconv.Itoa(i))))
			to.ObserveInt64(levels, m.Levels[i].TablesSize, level)
			to.ObserveInt64(tables, m.Levels[i].TablesCount, level)
		}
		return nil
	}, append(all, levels, tables, amplification)...)
}
