package kv

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"quorate/node"
	"quorate/node/kv/kvpb"
)

// Apply applies a batch of commands in one Pebble batch, together with the position it reaches. A command's result is
// its encoded Outcome.
func (s *Store) Apply(batch node.Batch) ([][]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.db.failure(); err != nil {
		return nil, err
	}
	a := applying{store: s, batch: s.db.NewBatch()}
	defer a.batch.Close()
	results := make([][]byte, len(batch.Commands))
	for i := range batch.Commands {
		command := &batch.Commands[i]
		decoded, err := decodeCommand(command.Data)
		if err != nil {
			return nil, fmt.Errorf("command at index %d: %w", command.ID.Index, err)
		}
		if results[i], err = a.command(command, decoded.Ops); err != nil {
			return nil, fmt.Errorf("command at index %d: %w", command.ID.Index, err)
		}
	}
	if err := writePosition(a.batch, batch.Last, batch.Records(results)); err != nil {
		return nil, err
	}
	if err := s.db.Apply(a.batch, pebble.NoSync); err != nil {
		return nil, err
	}
	if a.setting != nil {
		s.history.set(*a.setting)
	}
	s.history.applied(batch.Last.Index)
	return results, nil
}

// applying is one call of Apply.
type applying struct {
	store *Store
	batch *pebble.Batch
	// written holds the newest revision, 0 if deleted, of each key that this batch wrote: they cannot be read from the store yet.
	written map[string]uint64
	keyBuf  []byte
	// setting of the history, if this batch changes it.
	setting *historySetting
}

func (a *applying) command(command *node.Command, ops []*kvpb.Op) ([]byte, error) {
	outcome := kvpb.Outcome{Ops: make([]*kvpb.OpOutcome, len(ops))}
	outcomes := make([]kvpb.OpOutcome, len(ops))
	for i, op := range ops {
		outcome.Ops[i] = &outcomes[i]
		if err := a.op(command, op, &outcomes[i]); err != nil {
			return nil, err
		}
	}
	return outcome.MarshalVT()
}

func (a *applying) op(command *node.Command, op *kvpb.Op, out *kvpb.OpOutcome) error {
	if op.Kind == opHistory {
		return a.setHistory(command, op, out)
	}
	if checkKey(op.Key) != nil {
		out.Status = outcomeInvalid
		return nil
	}
	revision := command.ID.Index
	if a.written[string(op.Key)] == revision {
		out.Status = outcomeDuplicate
		return nil
	}
	if op.Conditional || op.Kind == opDelete {
		current, err := a.revision(op.Key)
		if err != nil {
			return err
		}
		if op.Conditional && current != op.Expected {
			out.Status, out.Revision = outcomeCondition, current
			return nil
		}
		if op.Kind == opDelete && current == 0 {
			out.Status = outcomeNotFound
			return nil
		}
	}
	kind, value, now := byte(recordValue), op.Value, revision
	if op.Kind == opDelete {
		kind, value, now = recordTombstone, nil, 0
	}
	a.keyBuf = appendVersionKey(a.keyBuf[:0], op.Key, revision)
	set := a.batch.SetDeferred(len(a.keyBuf), recordHeader+len(value))
	copy(set.Key, a.keyBuf)
	putRecord(set.Value, kind, command.Time, value)
	if err := set.Finish(); err != nil {
		return err
	}
	if a.written == nil {
		a.written = map[string]uint64{}
	}
	a.written[string(op.Key)] = now
	out.Status, out.Revision = outcomeDone, revision
	return nil
}

// setHistory changes how much history is kept from this command on. What an earlier setting has given up stays given up.
func (a *applying) setHistory(command *node.Command, op *kvpb.Op, out *kvpb.OpOutcome) error {
	now := a.store.history.setting()
	if a.setting != nil {
		now = *a.setting
	}
	revisions, err := decodeRevision(op.Value)
	if err != nil {
		return err
	}
	a.setting = &historySetting{revisions: revisions, base: now.floor(command.ID.Index)}
	out.Status, out.Revision = outcomeDone, command.ID.Index
	return a.batch.Set(historyKey, a.setting.append(nil), nil)
}

// revision returns the newest revision of a key, earlier writes of this batch included, or 0.
func (a *applying) revision(key []byte) (uint64, error) {
	if revision, ok := a.written[string(key)]; ok {
		return revision, nil
	}
	version, err := a.store.newest(key)
	return version.Revision, err
}
