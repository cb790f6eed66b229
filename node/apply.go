package node

import (
	"fmt"
	"runtime/debug"
	"time"

	"quorate/node/raft"
	"quorate/storage"
)

// Bounds of applying between two looks at the inputs.
const (
	applySlice      = 10 * time.Millisecond
	applyBatchBytes = 256 << 10
)

// membershipRecord is the System record that holds the newest applied configuration.
const membershipRecord = "membership"

func (c *raftCore) mustApply() bool { return c.applied.Index < c.engine.Applicable() }

// apply gives the state machine what is committed and durable here, for a slice of time. What is left is for the next pass.
func (c *raftCore) apply() error {
	if !c.mustApply() {
		return nil
	}
	begun := time.Now()
	for c.mustApply() {
		entries, err := c.log.Entries(c.applied.Index+1, c.engine.Applicable()+1, applyBatchBytes)
		if err != nil {
			return fmt.Errorf("read the log to apply from index %d: %w", c.applied.Index+1, err)
		}
		if err := c.applyBatch(entries); err != nil {
			return err
		}
		if time.Since(begun) > applySlice {
			break
		}
	}
	c.reads.applied(c.applied.Index)
	return nil
}

func (c *raftCore) applyBatch(entries []raft.Entry) error {
	batch := Batch{Commands: make([]Command, 0, len(entries)), Last: entries[len(entries)-1].ID}
	for _, entry := range entries {
		switch entry.Kind {
		case raft.EntryBlank:
		case raft.EntryCommand:
			batch.Commands = append(batch.Commands, Command{ID: entry.ID, Time: time.Unix(0, entry.Time), Data: entry.Data})
		case raft.EntryMembership:
			record, err := encodeMembershipRecord(raft.MembershipAt{ID: entry.ID, Membership: entry.Membership})
			if err != nil {
				return err
			}
			batch.System = append(batch.System, record)
		default:
			// To skip it would let this node differ from the others for ever.
			return fmt.Errorf("entry %v is of kind %d, which this version does not know: upgrade this node", entry.ID, entry.Kind)
		}
	}
	results, err := applySafely(c.sm, batch)
	if err != nil {
		return fmt.Errorf("state machine at entries %d to %d: %w", entries[0].ID.Index, batch.Last.Index, err)
	}
	if len(results) != len(batch.Commands) {
		return fmt.Errorf("state machine returned %d results for %d commands", len(results), len(batch.Commands))
	}
	c.applied = batch.Last
	next := 0
	for _, entry := range entries {
		var value []byte
		if entry.Kind == raft.EntryCommand {
			value = results[next]
			next++
		}
		c.proposals.applied(entry.ID, value)
	}
	return nil
}

// applySafely turns a panic of the user's code into an error: the node stops, the program that embeds it lives.
func applySafely(sm StateMachine, batch Batch) (results [][]byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return sm.Apply(batch)
}

func encodeMembershipRecord(at raft.MembershipAt) (SystemRecord, error) {
	entry := raft.Entry{ID: at.ID, Kind: raft.EntryMembership, Membership: at.Membership}
	if err := storage.SealEntry(&entry); err != nil {
		return SystemRecord{}, fmt.Errorf("encode the membership: %w", err)
	}
	return SystemRecord{Key: membershipRecord, Value: entry.Raw}, nil
}

func decodeMembershipRecord(record SystemRecord) (raft.MembershipAt, error) {
	entry, err := storage.OpenEntry(record.Value)
	if err != nil {
		return raft.MembershipAt{}, fmt.Errorf("membership in the state machine: %w", err)
	}
	return raft.MembershipAt{ID: entry.ID, Membership: entry.Membership}, nil
}
