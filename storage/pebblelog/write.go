package pebblelog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"quorate/node/raft"
	"quorate/storage"
)

// Write applies the change in one batch and returns without waiting for the disk. A write that is refused, because it does not follow
// on the log, changes nothing; one that fails is the store's last.
func (l *Log) Write(w storage.Write) (storage.Commit, error) {
	commit, err := l.write(w)
	if err != nil {
		return nil, fmt.Errorf("write the log: %w", err)
	}
	return commit, nil
}

func (l *Log) write(w storage.Write) (storage.Commit, error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.db.leave()
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.db.fault.Get(); err != nil {
		return nil, err
	}
	last := l.Last()
	truncates := w.TruncateFrom != 0 && w.TruncateFrom <= last.Index
	end := last
	if truncates {
		var err error
		if end, err = l.endOf(w.TruncateFrom); err != nil {
			return nil, fmt.Errorf("truncate from %d: %w", w.TruncateFrom, err)
		}
	}
	if err := checkAppend(end, w.Append); err != nil {
		return nil, err
	}
	batch := l.db.pebble.NewBatch()
	if err := l.db.durable.begin(batch); err != nil {
		return nil, errors.Join(err, batch.Close())
	}
	if truncates {
		// Operations of a batch take effect in their order: this deletes the old entries, not those that follow here.
		if err := batch.DeleteRange(l.entryKey(w.TruncateFrom), l.entryKey(last.Index+1), nil); err != nil {
			return nil, errors.Join(err, batch.Close())
		}
	}
	if err := l.fill(batch, w); err != nil {
		return nil, errors.Join(err, batch.Close())
	}
	// From here on a failure is the store's: what the disk holds is not known.
	if err := l.db.pebble.ApplyNoSyncWait(batch, pebble.Sync); err != nil {
		l.db.fault.Set(err)
	}
	if err := l.db.fault.Get(); err != nil {
		return nil, err
	}
	if w.Vote != nil {
		l.setVote(*w.Vote)
	}
	l.window.change(truncates, end, w.Append)
	return &commit{batch: batch, end: endOfBatch(batch), db: l.db}, nil
}

// endOf returns the log's last id once it is truncated from an index on.
func (l *Log) endOf(truncateFrom uint64) (raft.LogID, error) {
	if purged := l.Purged(); truncateFrom <= purged.Index {
		return raft.LogID{}, fmt.Errorf("%w (up to %v)", storage.ErrPurged, purged)
	}
	term, err := l.termNow(truncateFrom - 1)
	return raft.LogID{Term: term, Index: truncateFrom - 1}, err
}

// checkAppend refuses entries that would leave a gap, go back in term, or are not encoded.
func checkAppend(end raft.LogID, entries []raft.Entry) error {
	for i := range entries {
		entry := &entries[i]
		if !follows(entry.ID, end) {
			return fmt.Errorf("entry %v does not follow on %v", entry.ID, end)
		}
		if len(entry.Raw) == 0 {
			return fmt.Errorf("entry %v is not encoded", entry.ID)
		}
		end = entry.ID
	}
	return nil
}

func (l *Log) fill(batch *pebble.Batch, w storage.Write) error {
	if w.Vote != nil {
		value, err := storage.EncodeVote(*w.Vote)
		if err != nil {
			return err
		}
		if err := batch.Set(l.key(kindVote), value, nil); err != nil {
			return err
		}
	}
	for i := range w.Append {
		entry := &w.Append[i]
		op := batch.SetDeferred(len(l.prefix)+9, len(entry.Raw))
		copy(op.Key, l.prefix)
		op.Key[len(l.prefix)] = kindEntry
		binary.BigEndian.PutUint64(op.Key[len(l.prefix)+1:], entry.ID.Index)
		copy(op.Value, entry.Raw)
		if err := op.Finish(); err != nil {
			return err
		}
	}
	return nil
}

// commit is a batch on its way to disk.
type commit struct {
	batch *pebble.Batch
	end   uint64 // of the batch, see endOfBatch
	db    *DB
}

// Wait blocks until the batch is synced. A failed fsync is never tried again: what is on disk is not known then.
func (c *commit) Wait() error {
	if err := c.batch.SyncWait(); err != nil {
		c.db.fault.Set(err)
	}
	// After SyncWait: on a failure, the fault is set before Pebble is told of success (see failstop.Open).
	if err := c.db.fault.Get(); err != nil {
		return fmt.Errorf("fsync of the log: %w", err)
	}
	c.db.durable.advance(c.end)
	if err := c.batch.Close(); err != nil {
		return fmt.Errorf("release a written batch: %w", err)
	}
	return nil
}
