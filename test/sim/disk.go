package sim

import (
	"fmt"
	"slices"
	"time"

	"quorate/node/raft"
)

// disk is the log store of one node. A write is visible at once and durable later, in order, several with one sync. A crash
// keeps what is synced and, of what is not, a prefix of any length: what the operating system happened to write out.
type disk struct {
	w    *world
	node int
	// visible is what the running node reads.
	visible image
	// synced is what survives a crash for sure.
	synced  image
	pending []*raft.Write
	syncing bool
	// moved is when the oldest pending write came, or the process heard last that something became durable.
	moved time.Duration
	// stalled: no sync ends before that time.
	stalled time.Duration
	// flushed is the state machine's durable last applied id.
	flushed raft.LogID
	// state is the state machine's durable state, as of flushed.
	state   machineImage
	life    int
	durable func(seq uint64)
}

// image is the content of a disk. What is purged stays in entries, for the oracle to look at; nobody else can read it.
type image struct {
	vote    raft.Vote
	purged  raft.LogID
	entries []raft.Entry // entries[i] has index i+1
	// prefixes[i] is a hash of the log up to entries[i].
	prefixes []uint64
}

func (im *image) last() raft.LogID {
	if len(im.entries) == 0 {
		return raft.LogID{}
	}
	return im.entries[len(im.entries)-1].ID
}

func (im *image) has(id raft.LogID) bool {
	if id.Index == 0 {
		return id.Term == 0
	}
	return id.Index <= uint64(len(im.entries)) && im.entries[id.Index-1].ID == id
}

func (im *image) apply(write *raft.Write) error {
	if write.Vote != nil {
		if write.Vote.Term < im.vote.Term {
			return fmt.Errorf("vote goes back from %v to %v", im.vote, *write.Vote)
		}
		im.vote = *write.Vote
	}
	if from := write.TruncateFrom; from != 0 {
		if from > uint64(len(im.entries)) || from <= im.purged.Index {
			return fmt.Errorf("truncation from %d, but the log begins after %v and ends with %v", from, im.purged, im.last())
		}
		im.entries, im.prefixes = im.entries[:from-1], im.prefixes[:from-1]
	}
	for _, entry := range write.Append {
		if entry.ID.Index != uint64(len(im.entries))+1 || entry.ID.Term < im.last().Term {
			return fmt.Errorf("entry %v appended after %v", entry.ID, im.last())
		}
		before := uint64(0)
		if n := len(im.prefixes); n > 0 {
			before = im.prefixes[n-1]
		}
		im.entries = append(im.entries, entry)
		im.prefixes = append(im.prefixes, extend(before, entry))
	}
	return nil
}

func (d *disk) write(write *raft.Write) {
	if err := d.visible.apply(write); err != nil {
		d.w.fail("disk of n%d: %w", d.node+1, err)
	}
	if len(d.pending) == 0 {
		d.moved = d.w.now
	}
	d.pending = append(d.pending, write)
	d.sync()
}

// sync begins to sync all that is pending, if no sync is under way.
func (d *disk) sync() {
	if d.syncing || len(d.pending) == 0 {
		return
	}
	d.syncing = true
	n := len(d.pending)
	life := d.life
	latency := d.w.between(d.w.plan.syncTime/2, d.w.plan.syncTime*3/2)
	if !d.w.healed && d.w.chance(d.w.plan.slowSyncs) {
		latency = d.w.between(0, d.w.plan.slowSync)
	}
	d.w.after(latency, func() { d.finish(life, n) })
}

func (d *disk) finish(life, n int) {
	if life != d.life {
		return
	}
	if wait := d.stalled - d.w.now; wait > 0 {
		d.w.after(wait, func() { d.finish(life, n) })
		return
	}
	seq := d.pending[n-1].Seq
	d.keep(n)
	d.syncing = false
	d.w.trace.add(d.w.now, "synced", d.node, -1, seq, 0, nil)
	d.w.after(d.w.between(0, 100*time.Microsecond), func() {
		if life == d.life {
			d.durable(seq)
		}
	})
	d.sync()
}

// keep makes the first n pending writes durable.
func (d *disk) keep(n int) {
	for _, write := range d.pending[:n] {
		if err := d.synced.apply(write); err != nil {
			d.w.fail("disk of n%d: %w", d.node+1, err)
		}
	}
	d.pending = slices.Delete(d.pending, 0, n)
}

// purge forgets what is durable in the state machine, so it does not matter when the disk hears of it.
func (d *disk) purge(to raft.LogID) {
	d.visible.purged, d.synced.purged = to, to
}

// reset discards the log, durably: it begins after to, an entry that is committed.
func (d *disk) reset(to raft.LogID) {
	d.settle()
	fresh := image{vote: d.visible.vote, purged: to}
	for _, c := range d.w.oracle.committed[:to.Index] {
		fresh.entries = append(fresh.entries, c.entry)
		fresh.prefixes = append(fresh.prefixes, c.prefix)
	}
	d.visible, d.synced = fresh, fresh.clone()
}

// settle makes all that is pending durable: something durable was written after it.
func (d *disk) settle() {
	if len(d.pending) == 0 {
		return
	}
	seq := d.pending[len(d.pending)-1].Seq
	d.keep(len(d.pending))
	d.syncing = false
	d.life++ // the sync under way ends with nothing to tell
	life := d.life
	d.w.after(0, func() {
		if life == d.life {
			d.durable(seq)
		}
	})
}

func (im *image) clone() image {
	return image{vote: im.vote, purged: im.purged, entries: slices.Clone(im.entries), prefixes: slices.Clone(im.prefixes)}
}

func (d *disk) crash() {
	d.keep(d.w.rng.IntN(len(d.pending) + 1))
	d.pending = nil
	d.syncing = false
	d.life++
	d.visible = d.synced.clone()
}

// Term makes the disk a raft.LogTerms.
func (d *disk) Term(index uint64) (uint64, error) {
	switch {
	case index == d.visible.purged.Index:
		return d.visible.purged.Term, nil
	case index < d.visible.purged.Index:
		return 0, raft.ErrPurged
	}
	if index > uint64(len(d.visible.entries)) {
		return 0, fmt.Errorf("index %d is beyond %v", index, d.visible.last())
	}
	return d.visible.entries[index-1].ID.Term, nil
}

// read returns entries from lo up to, not including, hi, at least one, as far as maxBytes allows.
func (d *disk) read(lo, hi uint64, maxBytes int) ([]raft.Entry, error) {
	if lo > 0 && lo <= d.visible.purged.Index {
		return nil, raft.ErrPurged
	}
	if lo >= hi || lo == 0 || hi > uint64(len(d.visible.entries))+1 {
		return nil, fmt.Errorf("entries %d to %d of a log up to %v", lo, hi, d.visible.last())
	}
	n, bytes := uint64(0), 0
	for lo+n < hi {
		bytes += entrySize(d.visible.entries[lo+n-1])
		if n > 0 && bytes > maxBytes {
			break
		}
		n++
	}
	return slices.Clone(d.visible.entries[lo-1 : lo-1+n]), nil
}

func entrySize(e raft.Entry) int { return 16 + len(e.Data) }
