package node

import (
	"testing"
	"time"
)

func TestBatchingWaitsForAQuorumAsLongAsForTheDisk(t *testing.T) {
	var g batching
	at := time.Unix(1_800_000_000, 0)
	after := func(ms int) time.Time { return at.Add(time.Duration(ms) * time.Millisecond) }
	if g.waits(1000, at) {
		t.Error("waits before anything was written")
	}
	g.wrote(after(0))
	g.synced(after(3))
	for _, test := range []struct {
		uncommitted uint64
		ms          int
		want        bool
	}{
		{0, 3, false},                // committed
		{manyEntries - 1, 3, false},  // few: nobody is worth waiting for
		{manyEntries, 3, true},       // many
		{manyEntries, 5, true},       // still
		{manyEntries, 6, false},      // as long as the disk took
		{10 * manyEntries, 7, false}, // however many
	} {
		if got := g.waits(test.uncommitted, after(test.ms)); got != test.want {
			t.Errorf("with %d entries uncommitted after %d ms, waits: %v, want %v", test.uncommitted, test.ms, got, test.want)
		}
	}
}
