package pebblelog

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"quorate/node/raft"
	"quorate/storage"
)

// Purge deletes the entries up to and including upTo, which must be in the log. What is purged already is fine. The disk space comes
// back a little later.
func (l *Log) Purge(upTo raft.LogID) error {
	if err := l.purge(upTo); err != nil {
		return fmt.Errorf("purge up to %v: %w", upTo, err)
	}
	return nil
}

func (l *Log) purge(upTo raft.LogID) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.db.leave()
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.db.fault.Get(); err != nil {
		return err
	}
	purged := l.Purged()
	if upTo.Index <= purged.Index {
		return nil
	}
	term, err := l.termNow(upTo.Index)
	if err != nil {
		return err
	}
	if term != upTo.Term {
		return fmt.Errorf("the log has term %d there", term)
	}
	value, err := storage.EncodeLogID(upTo)
	if err != nil {
		return err
	}
	batch := l.db.pebble.NewBatch()
	err = errors.Join(
		l.db.durable.begin(batch),
		batch.Set(l.key(kindPurge), value, nil),
		// Only what an earlier purge has not deleted already, so that range tombstones do not pile up over one another.
		batch.DeleteRange(l.entryKey(purged.Index+1), l.entryKey(upTo.Index+1), nil),
	)
	if err != nil {
		return errors.Join(err, batch.Close())
	}
	if err := l.db.pebble.Apply(batch, pebble.NoSync); err != nil {
		l.db.fault.Set(err)
	}
	if err := l.db.fault.Get(); err != nil {
		return err
	}
	l.window.purge(upTo)
	l.reclaimer.start(l.reclaim)
	return batch.Close()
}
