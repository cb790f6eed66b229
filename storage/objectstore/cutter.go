package objectstore

import (
	"errors"
	"fmt"
	"math/bits"
)

// PartSizes bound the parts that a stream is cut into, in bytes before compression. They should stay the same: parts cut in another
// way are not found again.
type PartSizes struct{ Min, Average, Max int }

// DefaultPartSizes keep a large state's manifest small, and a retry or a changed part cheap.
var DefaultPartSizes = PartSizes{Min: 8 << 20, Average: 16 << 20, Max: maxPartRaw}

func (s PartSizes) check() error {
	if s.Min <= 0 || s.Average <= s.Min || s.Max <= s.Average || s.Max > maxPartRaw {
		return fmt.Errorf("sizes of parts: %d, %d, %d: want 0 < min < average < max <= %d", s.Min, s.Average, s.Max, maxPartRaw)
	}
	if s.Average-s.Min < 2 {
		return errors.New("sizes of parts: average and min are too close")
	}
	return nil
}

// cutter cuts a stream where its content says: after a byte at which a hash over the bytes just before it (a "gear" hash, which
// forgets what is 64 bytes back) has zeros in some of its bits. So an insertion changes the parts around it, and the cuts
// after it fall on the same content as before.
type cutter struct {
	sizes PartSizes
	mask  uint64
	gear  [256]uint64
	hash  uint64
	size  int // of the part so far
}

// gearWindow is how many bytes the hash remembers: each shifts it by one of 64 bits.
const gearWindow = 64

func newCutter(sizes PartSizes) *cutter {
	c := &cutter{sizes: sizes}
	// Past the smallest size, each byte is a cut with probability 2^-n: that gives the average.
	n := bits.Len(uint(sizes.Average-sizes.Min)) - 1
	c.mask = (1<<n - 1) << (64 - n) // the high bits: they depend on all bytes of the window
	// Fixed numbers without a pattern (splitmix64 from zero). They are a part of where parts are cut, and must never change.
	var state uint64
	for i := range c.gear {
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		c.gear[i] = z ^ z>>31
	}
	return c
}

// next says how many bytes of p belong to the present part, and whether the part ends there.
func (c *cutter) next(p []byte) (n int, cut bool) {
	i := 0
	if skip := c.sizes.Min - gearWindow - c.size; skip > 0 { // no cut is allowed here, and the hash will have forgotten it
		i = min(skip, len(p))
	}
	end := min(len(p), c.sizes.Max-c.size)
	first := max(0, c.sizes.Min-1-c.size) // the first byte after which a cut is allowed
	hash := c.hash
	for ; i < end; i++ {
		hash = hash<<1 + c.gear[p[i]]
		if hash&c.mask == 0 && i >= first {
			c.size, c.hash = 0, 0
			return i + 1, true
		}
	}
	if c.size += end; c.size == c.sizes.Max {
		c.size, c.hash = 0, 0
		return end, true
	}
	c.hash = hash
	return end, false
}
