package sim

import (
	"bytes"
	"fmt"
	"hash/fnv"

	"quorate/storage"
)

// effects is the oracle of exactly once: it knows which write took effect where, on any node ever, and what its result was.
type effects struct {
	w *world
	// first is how a write took effect, by its number.
	first map[uint64]outcome
	// refused writes were sent once, and answered that they were not applied.
	refused map[uint64]bool
	// states[i] is the digest of the state after the entry at index i.
	states map[uint64]uint64
	// tables[i] is the hash of the session table after it.
	tables map[uint64]uint64
}

func newEffects(w *world) effects {
	return effects{w: w, first: map[uint64]outcome{}, refused: map[uint64]bool{}, states: map[uint64]uint64{}, tables: map[uint64]uint64{}}
}

// applied checks that a write takes effect by one entry only, the same on all nodes, with the same result.
func (f *effects) applied(p *process, number uint64, o outcome) {
	was, known := f.first[number]
	switch {
	case !known:
		f.first[number] = o
	case was.id != o.id:
		f.w.fail("exactly once: n%d applies write %d by entry %v, but it took effect by entry %v", p.index+1, number, o.id, was.id)
	case !bytes.Equal(was.value, o.value):
		f.w.fail("exactly once: n%d answers write %d of entry %v with %x, others with %x", p.index+1, number, o.id, o.value, was.value)
	}
	if f.refused[number] {
		f.w.fail("exactly once: n%d applies write %d, which was refused", p.index+1, number)
	}
}

// state checks that all replicas have the same state after the same entry, whatever their batches and restarts.
func (f *effects) state(p *process, digest uint64) {
	index := p.applied.Index
	if was, known := f.states[index]; known && was != digest {
		f.w.fail("state machine safety: n%d has another state after entry %v than others", p.index+1, p.applied)
	}
	f.states[index] = digest
}

// records checks that all replicas have the same session table after the same entry: what differs there shows in answers only much later,
// or on the day when it is full.
func (f *effects) records(p *process, records []storage.SystemRecord) {
	h := fnv.New64a()
	for _, record := range records {
		fmt.Fprintf(h, "%q %x\n", record.Key, record.Value)
	}
	index, digest := p.applied.Index, h.Sum64()
	if was, known := f.tables[index]; known && was != digest {
		f.w.fail("state machine safety: n%d has another session table after entry %v than others", p.index+1, p.applied)
	}
	f.tables[index] = digest
}

// answered checks that a client is given the first result of its write.
func (f *effects) answered(number uint64, o outcome) {
	if was, known := f.first[number]; !known || was.id != o.id || !bytes.Equal(was.value, o.value) {
		f.w.fail("exactly once: write %d is answered with %x of entry %v, but took effect as %+v", number, o.value, o.id, was)
	}
}

// neverApplied notes a write that was sent once and refused.
func (f *effects) neverApplied(number uint64) {
	if was, known := f.first[number]; known {
		f.w.fail("exactly once: write %d is refused, but took effect by entry %v", number, was.id)
	}
	f.refused[number] = true
}
