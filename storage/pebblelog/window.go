package pebblelog

import (
	"slices"
	"sync"
	"unsafe"

	"quorate/node/raft"
)

// window holds the newest entries of a log in memory, and where the log begins and ends.
//
// Invariant: it equals the log from its first index to the log's end, through every truncation and purge.
type window struct {
	maxBytes int

	mu     sync.RWMutex // guards all below; RaftCore writes, everyone reads
	ring   []raft.Entry // of a length that is a power of two; entries are in a row of ascending index, from head on
	head   int
	count  int
	bytes  int // what the entries weigh
	purged raft.LogID
	last   raft.LogID
}

// weight is how much memory an entry takes here. A payload is a part of the encoded form (see storage.SealEntry).
func weight(e *raft.Entry) int { return len(e.Raw) + int(unsafe.Sizeof(*e)) }

func (w *window) at(i int) *raft.Entry { return &w.ring[(w.head+i)&(len(w.ring)-1)] }

// first is the index of the oldest entry; there must be one.
func (w *window) first() uint64 { return w.at(0).ID.Index }

// load takes the newest entries of a log that was just opened.
func (w *window) load(newestFirst []raft.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(newestFirst) - 1; i >= 0; i-- {
		w.push(&newestFirst[i])
	}
}

// change applies a write. afterTruncation is the log's last id when the truncation is done.
func (w *window) change(truncated bool, afterTruncation raft.LogID, added []raft.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if truncated {
		for w.count > 0 && w.at(w.count-1).ID.Index > afterTruncation.Index {
			w.drop(w.count - 1)
		}
		w.last = afterTruncation
	}
	for i := range added {
		w.push(&added[i])
	}
}

// push adds the log's next entry, and lets go of the oldest ones beyond the limit, but never of the newest.
func (w *window) push(e *raft.Entry) {
	w.bytes += weight(e)
	for w.bytes > w.maxBytes && w.count > 0 {
		w.dropOldest()
	}
	if w.count == len(w.ring) {
		w.grow()
	}
	w.count++
	*w.at(w.count - 1) = *e
	w.last = e.ID
}

func (w *window) grow() {
	ring := make([]raft.Entry, max(64, 2*len(w.ring)))
	for i := range w.count {
		ring[i] = *w.at(i)
	}
	w.ring, w.head = ring, 0
}

func (w *window) dropOldest() {
	w.drop(0)
	w.head = (w.head + 1) & (len(w.ring) - 1)
}

// drop forgets the first or the last entry, so that its memory can be collected.
func (w *window) drop(i int) {
	e := w.at(i)
	w.bytes -= weight(e)
	*e = raft.Entry{}
	w.count--
}

func (w *window) purge(upTo raft.LogID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.count > 0 && w.first() <= upTo.Index {
		w.dropOldest()
	}
	w.purged = upTo
	if w.last.Index < upTo.Index {
		w.last = upTo
	}
}

// reset forgets all entries; the log begins after to.
func (w *window) reset(to raft.LogID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.count > 0 {
		w.dropOldest()
	}
	w.purged, w.last = to, to
}

func (w *window) bounds() (purged, last raft.LogID) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.purged, w.last
}

// read appends entries from lo up to hi, at most maxBytes of them but at least one. It returns false if lo is not in the window.
func (w *window) read(into []raft.Entry, lo, hi uint64, maxBytes int) ([]raft.Entry, bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.count == 0 || lo < w.first() || lo > w.last.Index {
		return into, false
	}
	from := int(lo - w.first())
	to := int(min(hi, w.last.Index+1) - w.first())
	n, bytes := from, 0
	for n < to {
		bytes += len(w.at(n).Raw)
		if bytes > maxBytes && n > from {
			break
		}
		n++
	}
	begin := (w.head + from) & (len(w.ring) - 1)
	untilEnd := min(n-from, len(w.ring)-begin)
	into = append(slices.Grow(into, n-from), w.ring[begin:begin+untilEnd]...)
	return append(into, w.ring[:n-from-untilEnd]...), true
}

func (w *window) term(index uint64) (uint64, bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	switch {
	case index == w.purged.Index:
		return w.purged.Term, true
	case index == w.last.Index:
		return w.last.Term, true
	case w.count == 0 || index < w.first() || index > w.last.Index:
		return 0, false
	}
	return w.at(int(index - w.first())).ID.Term, true
}
