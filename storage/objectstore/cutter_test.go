package objectstore

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func cuts(sizes PartSizes, content []byte, piece func() int) []int {
	c := newCutter(sizes)
	var ends []int
	at := 0
	for at < len(content) {
		rest := content[at:]
		rest = rest[:min(len(rest), piece())]
		for len(rest) > 0 {
			n, cut := c.next(rest)
			rest, at = rest[n:], at+n
			if cut {
				ends = append(ends, at)
			}
		}
	}
	return ends
}

func whole() int { return 1 << 30 }

func TestCutsDoNotDependOnHowAStreamIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		content := randomBytes(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(0, 8000).Draw(t, "size"))
		sizes := PartSizes{Min: rapid.IntRange(1, 300).Draw(t, "min")}
		sizes.Average = sizes.Min + rapid.IntRange(2, 300).Draw(t, "average")
		sizes.Max = sizes.Average + rapid.IntRange(1, 300).Draw(t, "max")
		want := cuts(sizes, content, whole)
		got := cuts(sizes, content, func() int { return rapid.IntRange(1, 500).Draw(t, "piece") })
		if !slices.Equal(want, got) {
			t.Fatalf("at once: %v, in pieces: %v", want, got)
		}
		start := 0
		for _, end := range want {
			if n := end - start; n < sizes.Min || n > sizes.Max {
				t.Fatalf("a part of %d bytes, not of %d to %d", n, sizes.Min, sizes.Max)
			}
			start = end
		}
		if len(content)-start > sizes.Max {
			t.Fatalf("the last part has %d bytes", len(content)-start)
		}
	})
}

func TestCutsMeetAgainAfterAnInsertion(t *testing.T) {
	content := randomBytes(5, 4<<20)
	before := cuts(smallParts, content, whole)
	at := len(content) / 3
	changed := slices.Concat(content[:at], []byte("something new"), content[at:])
	after := cuts(smallParts, changed, whole)
	known := make(map[int]bool)
	for _, end := range before {
		known[end] = true
	}
	fresh := 0
	for _, end := range after {
		if end > at {
			end -= len("something new")
		}
		if !known[end] {
			fresh++
		}
	}
	if average := len(content) / len(before); average < smallParts.Average/2 || average > smallParts.Average*3/2 {
		t.Errorf("parts of %d bytes on average", average)
	}
	if fresh > 5 {
		t.Errorf("%d of %d cuts are new", fresh, len(after))
	}
}

// TestCutsStayTheSame: a version that cuts elsewhere finds no part of those stored, and sends all again.
func TestCutsStayTheSame(t *testing.T) {
	got := fmt.Sprint(cuts(PartSizes{Min: 100, Average: 356, Max: 1000}, randomBytes(1, 3000), whole))
	if want := "[147 600 776 915 1915 2429 2626 2742 2847]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
