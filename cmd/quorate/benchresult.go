package main

import "github.com/HdrHistogram/hdrhistogram-go"

// benchResult is what a benchmark measured, and its JSON form.
type benchResult struct {
	Load       benchLoad               `json:"load"`
	Seconds    float64                 `json:"seconds"`
	Operations int64                   `json:"operations"`
	PerSecond  float64                 `json:"operations_per_second"`
	Ops        map[string]benchMeasure `json:"by_operation"`
	Errors     map[string]uint64       `json:"errors"`
	firstError error
}

// benchMeasure is what was measured of one kind of operation.
type benchMeasure struct {
	Operations     int64        `json:"operations"`
	PerSecond      float64      `json:"operations_per_second"`
	BytesPerSecond float64      `json:"value_bytes_per_second"`
	Latency        benchLatency `json:"latency_us"`
}

// benchLatency is a distribution of latencies, in microseconds.
type benchLatency struct {
	Mean float64 `json:"mean"`
	P50  int64   `json:"p50"`
	P90  int64   `json:"p90"`
	P99  int64   `json:"p99"`
	P999 int64   `json:"p99_9"`
	Max  int64   `json:"max"`
}

// result puts together what the client goroutines measured. It is called after they have ended.
func (b *benchRun) result() benchResult {
	r := benchResult{Load: b.load, Seconds: b.elapsed.Seconds(), Ops: map[string]benchMeasure{}, Errors: map[string]uint64{}}
	merged := map[string]*hdrhistogram.Histogram{}
	for _, t := range b.tallies {
		for op, h := range t.latency {
			if merged[op] == nil {
				merged[op] = hdrhistogram.New(shortestLatency, longestLatency, latencyDigits)
			}
			merged[op].Merge(h)
		}
		for kind, n := range t.errors {
			r.Errors[kind] += n
		}
		if r.firstError == nil {
			r.firstError = t.firstError
		}
	}
	for op, h := range merged {
		n := h.TotalCount()
		r.Operations += n
		r.Ops[op] = benchMeasure{
			Operations: n, PerSecond: float64(n) / r.Seconds, BytesPerSecond: float64(n) * float64(b.load.Size) / r.Seconds,
			Latency: benchLatency{
				Mean: h.Mean(), P50: h.ValueAtQuantile(50), P90: h.ValueAtQuantile(90), P99: h.ValueAtQuantile(99),
				P999: h.ValueAtQuantile(99.9), Max: h.Max(),
			},
		}
	}
	r.PerSecond = float64(r.Operations) / r.Seconds
	return r
}
