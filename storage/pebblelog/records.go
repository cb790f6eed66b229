package pebblelog

import (
	"errors"
	"fmt"

	"quorate/node/raft"
	"quorate/storage"
)

// Vote returns the newest vote written.
func (l *Log) Vote() raft.Vote {
	l.records.mu.RLock()
	defer l.records.mu.RUnlock()
	return l.records.vote
}

func (l *Log) setVote(v raft.Vote) {
	l.records.mu.Lock()
	defer l.records.mu.Unlock()
	l.records.vote = v
}

// Identity returns what SetIdentity stored.
func (l *Log) Identity() (storage.Identity, bool) {
	l.records.mu.RLock()
	defer l.records.mu.RUnlock()
	if l.records.identity == nil {
		return storage.Identity{}, false
	}
	return *l.records.identity, true
}

// SetIdentity stores the identity durably. The same one again is fine.
func (l *Log) SetIdentity(id storage.Identity) error {
	if old, ok := l.Identity(); ok {
		if old == id {
			return nil
		}
		return fmt.Errorf("set identity: the log belongs to %s of cluster %s already, not to %s of %s", old.Peer, old.Cluster, id.Peer, id.Cluster)
	}
	value, err := storage.EncodeIdentity(id)
	if err != nil {
		return fmt.Errorf("set identity: %w", err)
	}
	if err := l.setDurably(kindIdentity, value); err != nil {
		return fmt.Errorf("set identity: %w", err)
	}
	l.records.mu.Lock()
	defer l.records.mu.Unlock()
	l.records.identity = &id
	return nil
}

// Genesis returns what SetGenesis stored.
func (l *Log) Genesis() (storage.Genesis, bool) {
	l.records.mu.RLock()
	defer l.records.mu.RUnlock()
	if l.records.genesis == nil {
		return storage.Genesis{}, false
	}
	return *l.records.genesis, true
}

// SetGenesis stores the genesis durably. The same one again is fine.
func (l *Log) SetGenesis(genesis storage.Genesis) error {
	if old, ok := l.Genesis(); ok {
		if old.Equal(genesis) {
			return nil
		}
		return fmt.Errorf("set genesis: the log has that of cluster id %s already, not that of %s", old.ClusterID(), genesis.ClusterID())
	}
	value, err := storage.EncodeGenesis(genesis)
	if err != nil {
		return fmt.Errorf("set genesis: %w", err)
	}
	if err := l.setDurably(kindGenesis, value); err != nil {
		return fmt.Errorf("set genesis: %w", err)
	}
	l.records.mu.Lock()
	defer l.records.mu.Unlock()
	l.records.genesis = &genesis
	return nil
}

func (l *Log) setDurably(kind byte, value []byte) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.db.leave()
	if err := l.db.fault.Get(); err != nil {
		return err
	}
	batch := l.db.pebble.NewBatch()
	if err := errors.Join(l.db.durable.begin(batch), batch.Set(l.key(kind), value, nil)); err != nil {
		return errors.Join(err, batch.Close())
	}
	return l.db.applyDurably(batch)
}
