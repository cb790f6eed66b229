package kv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"quorate/node/raft"
	"quorate/storage"
)

// # History
//
// The floor is the last applied index less the number of revisions that are kept. That number is a setting of the cluster, a part of the
// state: commands change it, snapshots carry it. Reads at a revision below the floor are answered with ErrCompacted: that depends on the
// log alone, so all replicas answer alike. A setting that keeps more does not bring back what an earlier one has given up. Of each key, the versions that a newer one at or below the floor supersedes can
// then no longer be seen, nor can a tombstone at or below the floor that nothing older is left under. A goroutine of the Store removes them
// in the background; when, is no replica's concern but its own.
//
// Two records in the state say how far that is:
//
//	floor   below this revision there may be gaps. It is stored before the first removal, so whoever sees a gap sees the floor.
//	swept   all that can be removed for this floor is removed. It is stored after the last removal.
//
// Whatever becomes removable when the floor moves from swept to a new place belongs to a key with a version in between, so a sweep reads
// the blocks with revisions in between only (see revisions.go).
//
// All removals in a key are in one Pebble batch, and Pebble loses only the newest batches in a crash: a tombstone is never gone while
// what it deletes is there.

// DefaultHistory is how many revisions (log indexes) of history a cluster keeps unless told otherwise (Client.SetHistory): four times the
// node's default SnapshotEntries. A difference needs all history since the snapshot that it is based on. States that were never told
// depend on it, so a version of Quorate with another number would be another format.
const DefaultHistory = 4_000_000

// A sweep does this much at a time, to keep neither Apply nor an installation waiting: removals go through Pebble's commit like a batch of
// commands.
const (
	sweepSteps = 2048
	// sweepSingly: of a key with more superseded versions, a range is removed. A range costs later readers more than a few single ones.
	sweepSingly = 16
)

// sweepsPerHistory: the floor moves on disk in steps of this part of what is kept, so a store keeps at most an eighth more than it has to.
const sweepsPerHistory = 8

// history is what a Store knows of its past. Values may be read at any time; begin is called while nothing else uses the state.
type history struct {
	// The setting. Where both change, base is stored first and read last: whoever sees a new number sees the new base.
	revisions atomic.Uint64
	base      atomic.Uint64

	last  atomic.Uint64 // the applied index
	floor atomic.Uint64 // the stored floor
	swept atomic.Uint64
	wake  chan struct{} // capacity 1: there may be something to sweep
}

func (h *history) begin(p position) {
	h.set(p.setting)
	h.last.Store(p.last.Index)
	h.floor.Store(p.floor)
	h.swept.Store(p.swept)
	h.applied(p.last.Index)
}

// applied notes that the state has reached an index.
func (h *history) applied(index uint64) {
	h.last.Store(index)
	if h.due() {
		select {
		case h.wake <- struct{}{}:
		default:
		}
	}
}

func (h *history) set(s historySetting) {
	h.base.Store(s.base)
	h.revisions.Store(s.revisions)
}

func (h *history) setting() historySetting {
	revisions := h.revisions.Load()
	return historySetting{revisions: revisions, base: h.base.Load()}
}

// wanted is the floor by the log.
func (h *history) wanted() uint64 {
	last := h.last.Load()
	return h.setting().floor(last)
}

// historySetting is how much history the cluster keeps.
type historySetting struct {
	// revisions that are kept; math.MaxUint64 for all.
	revisions uint64
	// base is the floor that earlier settings have left.
	base uint64
}

const historySettingBytes = 16

// floor when the state has reached an index.
func (s historySetting) floor(index uint64) uint64 { return max(s.base, index-min(index, s.revisions)) }

func (s historySetting) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, s.revisions)
	return binary.BigEndian.AppendUint64(b, s.base)
}

func parseHistorySetting(b []byte) historySetting {
	return historySetting{revisions: binary.BigEndian.Uint64(b), base: binary.BigEndian.Uint64(b[8:])}
}

// History is how many revisions of history are kept, as of what is applied here; math.MaxUint64 for all.
func (s *Store) History() uint64 { return s.history.revisions.Load() }

func (h *history) due() bool {
	wanted, swept := h.wanted(), h.swept.Load()
	return wanted > swept && wanted-swept >= max(1, h.revisions.Load()/sweepsPerHistory)
}

// check refuses a revision whose history is gone. It must be called when the reader's iterator has been made: whatever that sees removed
// is below the floor by now.
func (h *history) check(revision uint64) error {
	if revision == 0 {
		return nil
	}
	if floor := max(h.wanted(), h.floor.Load()); revision < floor {
		return fmt.Errorf("%w: revision %d is before %d", ErrCompacted, revision, floor)
	}
	return nil
}

// position is what the state says of itself.
type position struct {
	last         raft.LogID
	floor, swept uint64
	setting      historySetting
}

func (s *Store) readPosition(r pebble.Reader) (p position, err error) {
	p.setting.revisions = s.options.history
	err = errors.Join(
		readRecord(r, lastKey, func(b []byte) (err error) { p.last, err = storage.DecodeLogID(b); return err }),
		readRecord(r, floorKey, func(b []byte) (err error) { p.floor, err = decodeRevision(b); return err }),
		readRecord(r, historyKey, func(b []byte) error {
			if len(b) != historySettingBytes {
				return fmt.Errorf("%w: a setting of %d bytes", errCorrupt, len(b))
			}
			p.setting = parseHistorySetting(b)
			return nil
		}),
		readRecord(r, sweptKey, func(b []byte) (err error) { p.swept, err = decodeRevision(b); return err }),
	)
	return p, err
}

// readRecord reads one of the state's own records, if it is there.
func readRecord(r pebble.Reader, key []byte, decode func([]byte) error) error {
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = errors.Join(decode(value), closer.Close())
	}
	if err != nil {
		return fmt.Errorf("read the record %q: %w", key[1:], err)
	}
	return nil
}

func decodeRevision(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: a revision of %d bytes", errCorrupt, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

func setRevision(w pebble.Writer, key []byte, revision uint64) error {
	return w.Set(key, binary.BigEndian.AppendUint64(nil, revision), pebble.NoSync)
}

// sweepHistory sweeps whenever enough has become removable, until ctx ends or a sweep fails.
func (s *Store) sweepHistory(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.history.wake:
		}
		for s.history.due() && ctx.Err() == nil {
			if err := s.sweep(ctx); err != nil {
				return
			}
		}
	}
}

// sweep removes what the floor, as it is now, allows. It ends early, without an error, if ctx ends or the state is replaced. An
// error is the state's failure.
func (s *Store) sweep(ctx context.Context) error {
	var w *sweeping
	for ctx.Err() == nil {
		begun := time.Now()
		s.mu.RLock()
		if w != nil && w.db != s.db {
			s.mu.RUnlock()
			return nil
		}
		var err error
		if w == nil {
			w, err = s.beginSweep()
		}
		done := false
		if err == nil {
			done, err = w.some()
		}
		if err == nil && done {
			if err = setRevision(w.db, sweptKey, w.floor); err == nil {
				s.history.swept.Store(w.floor)
			}
		}
		if err != nil {
			s.db.fault.Set(fmt.Errorf("remove history: %w", err))
		}
		s.mu.RUnlock()
		if err != nil || done {
			return err
		}
		// At most half of the time, so that the state has the rest of the disk and the processor.
		wait(ctx, time.Since(begun))
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// sweeping is one sweep: it removes what is superseded at or below floor in keys with a version after swept.
type sweeping struct {
	db           *stateDB
	swept, floor uint64
	from         []byte // where to go on
}

// beginSweep stores the new floor. mu must be held.
func (s *Store) beginSweep() (*sweeping, error) {
	w := &sweeping{db: s.db, swept: s.history.swept.Load(), floor: s.history.wanted()}
	if w.floor > s.history.floor.Load() {
		s.history.floor.Store(w.floor)
		if err := setRevision(w.db, floorKey, w.floor); err != nil {
			return nil, err
		}
	}
	w.from = []byte{dataPrefix}
	return w, nil
}

// some makes a bounded number of steps, and reports whether the sweep is complete.
func (w *sweeping) some() (done bool, err error) {
	found, err := w.db.NewIter(revisionsAfter(w.swept, w.floor))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, found.Close()) }()
	older, err := w.db.NewIter(allVersions())
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, older.Close()) }()
	batch := w.db.NewBatch()
	defer func() { err = errors.Join(err, batch.Close()) }()

	ok := found.SeekGE(w.from)
	var key []byte
	for steps := 0; ok && steps < sweepSteps; steps++ {
		var revision uint64
		if key, revision, err = splitVersionKey(key[:0], found.Key()); err != nil {
			return false, err
		}
		switch {
		case revision > w.floor:
			ok = found.SeekGE(appendVersionKey(nil, key, w.floor))
		case revision <= w.swept:
			ok = found.Next()
		default: // the newest one at or below the floor
			n, err := w.removeBelow(batch, older, found, key)
			if err != nil {
				return false, err
			}
			steps += n
			ok = found.SeekGE(versionsEnd(key))
		}
	}
	if ok {
		w.from = append(w.from[:0], found.Key()...)
	}
	if err := found.Error(); err != nil {
		return false, err
	}
	return !ok, w.db.Apply(batch, pebble.NoSync)
}

// removeBelow removes the versions that are older than the one under newest, and that one too if it is a tombstone.
func (w *sweeping) removeBelow(batch *pebble.Batch, older, newest *pebble.Iterator, key []byte) (removed int, err error) {
	record, err := newest.ValueAndErr()
	if err != nil {
		return 0, err
	}
	deleted, _, _, err := splitRecord(record)
	if err != nil {
		return 0, err
	}
	first, end := newest.Key(), versionsEnd(key)
	ok := older.SeekGE(first)
	if !deleted && ok {
		ok = older.Next()
	}
	var start []byte
	for ; ok && string(older.Key()) < string(end); ok = older.Next() {
		if start == nil {
			start = append(start, older.Key()...)
		}
		if removed++; removed > sweepSingly {
			return removed, batch.DeleteRange(start, end, nil)
		}
		if err := batch.Delete(older.Key(), nil); err != nil {
			return removed, err
		}
	}
	return removed, older.Error()
}

// versionsEnd sorts after all versions of a key and before the next key.
func versionsEnd(key []byte) []byte {
	end := appendKey(nil, key)
	end[len(end)-1] = afterVersions
	return end
}
