package pebblelog

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"quorate/node/raft"
	"quorate/storage"
)

// Reset discards all entries and lets the log begin after to. It waits for the disk.
func (l *Log) Reset(to raft.LogID) error {
	if err := l.reset(to); err != nil {
		return fmt.Errorf("reset the log to %v: %w", to, err)
	}
	return nil
}

func (l *Log) reset(to raft.LogID) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.db.leave()
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.db.fault.Get(); err != nil {
		return err
	}
	value, err := storage.EncodeLogID(to)
	if err != nil {
		return err
	}
	purged, last := l.window.bounds()
	batch := l.db.pebble.NewBatch()
	err = errors.Join(l.db.durable.begin(batch), batch.Set(l.key(kindPurge), value, nil))
	if last.Index > purged.Index {
		err = errors.Join(err, batch.DeleteRange(l.entryKey(purged.Index+1), l.entryKey(last.Index+1), nil))
	}
	if err != nil {
		return errors.Join(err, batch.Close())
	}
	if err := l.db.pebble.Apply(batch, pebble.Sync); err != nil {
		l.db.fault.Set(err)
	}
	if err := l.db.fault.Get(); err != nil {
		return err
	}
	l.window.reset(to)
	return batch.Close()
}
