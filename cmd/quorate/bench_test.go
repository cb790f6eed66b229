package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"quorate/node/kv"
)

func measured(t *testing.T) benchResult {
	t.Helper()
	b := newBenchRun(benchLoad{Ops: opsMix, Clients: 2, Size: 100, Keys: 10, prefix: "bench/"}, nil, time.Second)
	b.elapsed = 2 * time.Second
	for client := range 2 {
		tally := &benchTally{latency: map[string]*hdrhistogram.Histogram{}, errors: map[string]uint64{}}
		for i := range 500 {
			tally.count(opsPut, time.Duration(client*500+i+1)*time.Microsecond, nil)
		}
		tally.count(opsGet, 24*time.Hour, nil) // beyond the histogram's range
		tally.count(opsPut, time.Second, fmt.Errorf("put: %w", kv.ErrUnknownOutcome))
		tally.count(opsGet, time.Second, context.DeadlineExceeded)
		b.tallies = append(b.tallies, tally)
	}
	return b.result()
}

func TestBenchResult(t *testing.T) {
	r := measured(t)
	put := r.Ops[opsPut]
	if put.Operations != 1000 || put.PerSecond != 500 || put.BytesPerSecond != 50_000 || r.Operations != 1002 {
		t.Errorf("counts: %+v", r)
	}
	for name, c := range map[string]struct{ got, want int64 }{
		"p50": {put.Latency.P50, 500}, "p90": {put.Latency.P90, 900}, "p99": {put.Latency.P99, 990}, "p99.9": {put.Latency.P999, 999}, "max": {put.Latency.Max, 1000},
	} {
		if diff := float64(c.got-c.want) / float64(c.want); diff > 0.01 || diff < -0.01 {
			t.Errorf("%s is %d µs, want %d", name, c.got, c.want)
		}
	}
	if r.Errors["unknown_outcome"] != 2 || r.Errors["timeout"] != 2 || r.firstError == nil {
		t.Errorf("errors: %v, first %q", r.Errors, r.firstError)
	}
}

func TestBenchResultIsPrinted(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out, output: outputJSON}
	if err := a.printBench(measured(t)); err != nil {
		t.Fatal(err)
	}
	var back benchResult
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.Ops[opsPut].Latency.P99 == 0 || back.Load.Size != 100 {
		t.Errorf("%v: %s", err, out.String())
	}
	out.Reset()
	a.output = outputText
	if err := a.printBench(measured(t)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"p99.9", "errors: unknown_outcome: 2", "put", "get", "first error: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// A cluster that takes longer than the bench lasts has not failed: that is said, and not an error that there is not.
func TestBenchWithoutAnAnswerInItsTimeSaysSo(t *testing.T) {
	url, _ := startSilent(t, "dev")
	status, _, stderr := runCommand(t, "", "bench", "--clients", "1", "--warmup", "0s", "--duration", "10ms", "--timeout", "1s", "--nats", url)
	if status != statusUnavailable || !strings.Contains(stderr, "within the --duration of 10ms") {
		t.Errorf("exit status %d, want %d\n%s", status, statusUnavailable, stderr)
	}
}

func TestBenchValuesDiffer(t *testing.T) {
	b := newBenchRun(benchLoad{Size: 64, Keys: 1}, nil, time.Second)
	random := newRandom()
	first, second := b.value(random), b.value(random)
	if len(first) != 64 || bytes.Equal(first, second) {
		t.Errorf("values %x and %x", first, second)
	}
}
