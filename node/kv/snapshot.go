package kv

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"quorate/node"
	"quorate/node/raft"
)

// Snapshot returns a view of the state as it is now. It is a node.DeltaSnapshot.
func (s *Store) Snapshot() (node.Snapshot, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return nil, errClosed
	}
	return &snapshot{store: s, view: s.db.NewSnapshot()}, nil
}

type snapshot struct {
	store *Store
	view  *pebble.Snapshot
}

func (s *snapshot) Close() error { return s.view.Close() }

// WriteTo writes every version of every key, as one layer.
func (s *snapshot) WriteTo(ctx context.Context, w io.Writer) error {
	position, err := s.store.readPosition(s.view)
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	header := layerHeader{kind: layerWhole, upto: position.last.Index, floor: position.floor, setting: position.setting}
	if err := s.writeLayer(ctx, w, header, allVersions()); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// WriteDeltaTo writes every version with a revision greater than since, as one layer. Blocks of the state that hold only older ones are not
// read. It returns node.ErrNoDelta if history after since may have been removed: then a deletion could be missing, and what it deleted
// would live on at the receiver.
func (s *snapshot) WriteDeltaTo(ctx context.Context, since raft.LogID, w io.Writer) error {
	position, err := s.store.readPosition(s.view)
	if err != nil {
		return fmt.Errorf("write the changes since %v: %w", since, err)
	}
	if since.Index < position.floor {
		return fmt.Errorf("write the changes since %v: history below %d is removed: %w", since, position.floor, node.ErrNoDelta)
	}
	if since.Index > position.last.Index {
		return fmt.Errorf("write the changes since %v: the state goes up to %v: %w", since, position.last, node.ErrNoDelta)
	}
	header := layerHeader{kind: layerDelta, since: since.Index, upto: position.last.Index, floor: position.floor, setting: position.setting}
	if err := s.writeLayer(ctx, w, header, revisionsAfter(since.Index, position.last.Index)); err != nil {
		return fmt.Errorf("write the changes since %v: %w", since, err)
	}
	return nil
}

func (s *snapshot) writeLayer(ctx context.Context, w io.Writer, header layerHeader, options *pebble.IterOptions) (err error) {
	out, err := newLayerWriter(w, header)
	if err != nil {
		return err
	}
	it, err := s.view.NewIterWithContext(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	var key []byte
	seen := 0
	for ok := it.First(); ok; ok = it.Next() {
		if seen++; seen%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var revision uint64
		if key, revision, err = splitVersionKey(key[:0], it.Key()); err != nil {
			return err
		}
		if header.kind == layerDelta && revision <= header.since {
			continue
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := out.record(it.Key(), value); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	return out.end()
}
