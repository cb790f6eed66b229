package node

import (
	"testing"
	"time"
)

func TestBatchingWaitsForAQuorumNoLongerThanAFewTimesTheDisk(t *testing.T) {
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
		{0, 3, false},                 // committed
		{manyEntries - 1, 3, false},   // few: nobody is worth waiting for
		{manyEntries, 3, true},        // many
		{manyEntries, 14, true},       // still
		{manyEntries, 15, false},      // four times what the disk took
		{10 * manyEntries, 16, false}, // however many
	} {
		if got := g.waits(test.uncommitted, after(test.ms)); got != test.want {
			t.Errorf("with %d entries uncommitted after %d ms, waits: %v, want %v", test.uncommitted, test.ms, got, test.want)
		}
	}
}

func TestUsersComeBackUntilNoMoreDo(t *testing.T) {
	for _, test := range []struct {
		arrive []int // with each yield
		want   int   // yields
	}{
		{nil, 1},
		{[]int{60, 60, 7}, 4},
		{[]int{60, 0, 60}, 2},
		{[]int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, maxYields}, // a flood is not waited for
	} {
		waiting, yields := 3, 0
		comeBack(func() int { return waiting }, func() {
			if yields < len(test.arrive) {
				waiting += test.arrive[yields]
			}
			yields++
		})
		if yields != test.want {
			t.Errorf("arrivals %v: %d yields, want %d", test.arrive, yields, test.want)
		}
	}
}
