package pebblelog

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"quorate/node/raft"
	"quorate/storage"
)

// Refounding makes a log the first one of a new cluster.
type Refounding struct {
	Identity storage.Identity
	Genesis  storage.Genesis
	Vote     raft.Vote
	// Begin is the log id after which the log begins.
	Begin raft.LogID
}

// Refound replaces whose log it is, and discards its entries, in one atomic step that is durable when it returns. It is for an operator
// who gives up the cluster that the log was of: nothing that runs does it.
func (l *Log) Refound(r Refounding) error {
	if err := l.refound(r); err != nil {
		return fmt.Errorf("refound the log: %w", err)
	}
	return nil
}

func (l *Log) refound(r Refounding) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.db.leave()
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.db.fault.Get(); err != nil {
		return err
	}
	identity, err1 := storage.EncodeIdentity(r.Identity)
	genesis, err2 := storage.EncodeGenesis(r.Genesis)
	vote, err3 := storage.EncodeVote(r.Vote)
	begin, err4 := storage.EncodeLogID(r.Begin)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	purged, last := l.window.bounds()
	batch := l.db.pebble.NewBatch()
	err := errors.Join(
		l.db.durable.begin(batch),
		batch.Set(l.key(kindIdentity), identity, nil),
		batch.Set(l.key(kindGenesis), genesis, nil),
		batch.Set(l.key(kindVote), vote, nil),
		batch.Set(l.key(kindPurge), begin, nil),
	)
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
	l.window.reset(r.Begin)
	l.setVote(r.Vote)
	l.records.mu.Lock()
	defer l.records.mu.Unlock()
	l.records.identity, l.records.genesis = &r.Identity, &r.Genesis
	return batch.Close()
}
