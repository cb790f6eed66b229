package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"quorate/node/raft"
	"quorate/node/sessions"
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
		var err error
		c.applying, err = c.log.Entries(c.applying[:0], c.applied.Index+1, c.engine.Applicable()+1, applyBatchBytes)
		if err != nil {
			return fmt.Errorf("read the log to apply from index %d: %w", c.applied.Index+1, err)
		}
		if err := c.applyBatch(c.applying); err != nil {
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
	for len(entries) > 0 {
		n, err := c.applySome(entries)
		if err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// answered is how an entry is answered that the state machine is not given.
type answered struct {
	value []byte
	err   error
}

// applySome applies entries in one batch, as many as fit into one: a retry whose first instance is in the batch begins the next.
func (c *raftCore) applySome(entries []raft.Entry) (int, error) {
	batch := Batch{Commands: make([]Command, 0, len(entries))}
	var others map[uint64]answered // by index
	answer := func(e *raft.Entry, a answered) {
		if others == nil {
			others = map[uint64]answered{}
		}
		others[e.ID.Index] = a
	}
	n := 0
collect:
	for ; n < len(entries); n++ {
		entry := &entries[n]
		switch entry.Kind {
		case raft.EntryBlank:
			answer(entry, answered{})
		case raft.EntrySession:
			c.sessions.Register(entry)
			answer(entry, answered{})
		case raft.EntryCommand, raft.EntryOnce:
			data := entry.Data
			switch verdict, result := c.sessions.Judge(entry); verdict {
			case sessions.Wait:
				break collect
			case sessions.Known:
				answer(entry, answered{value: result.Value})
				continue
			case sessions.Refused:
				answer(entry, answered{err: ErrSessionExpired})
				continue
			}
			if entry.Kind == raft.EntryOnce {
				var err error
				if _, data, err = sessions.SplitOnce(data); err != nil {
					return 0, fmt.Errorf("entry %v: %w", entry.ID, err)
				}
			}
			batch.Commands = append(batch.Commands, Command{ID: entry.ID, Time: time.Unix(0, entry.Time), Data: data})
		case raft.EntryMembership:
			record, err := encodeMembershipRecord(raft.MembershipAt{ID: entry.ID, Membership: entry.Membership})
			if err != nil {
				return 0, err
			}
			batch.System = append(batch.System, record)
			c.appliedMembership = raft.MembershipAt{ID: entry.ID, Membership: entry.Membership}
			answer(entry, answered{})
		case raft.EntrySetting:
			at := raft.SettingAt{ID: entry.ID, Setting: *entry.Setting}
			record, err := encodeSettingRecord(at)
			if err != nil {
				return 0, err
			}
			batch.System = append(batch.System, record)
			c.appliedSetting = at
			answer(entry, answered{})
		default:
			// To skip it would let this node differ from the others for ever.
			return 0, errors.Join(c.cfg.checkEntry(entry), fmt.Errorf("entry %v cannot be applied", entry.ID))
		}
	}
	entries = entries[:n]
	batch.Last = entries[n-1].ID
	stored := false
	batch.sessions = func(results [][]byte) []SystemRecord {
		stored = true
		return c.sessionRecords(entries, others, results)
	}
	began := time.Now()
	results, err := applySafely(c.sm, batch)
	if err != nil {
		return 0, fmt.Errorf("state machine at entries %d to %d: %w", entries[0].ID.Index, batch.Last.Index, err)
	}
	if len(results) != len(batch.Commands) {
		return 0, fmt.Errorf("state machine returned %d results for %d commands", len(results), len(batch.Commands))
	}
	if !stored {
		c.sessionRecords(entries, others, results)
	}
	c.metrics.applied(c.tracing.applied(entries, began), began)
	c.applied, c.appliedTime = batch.Last, max(c.appliedTime, entries[n-1].Time)
	next := 0
	for i := range entries {
		a, ok := others[entries[i].ID.Index]
		if !ok {
			a.value = results[next]
			next++
		}
		c.proposals.applied(entries[i].ID, a.value, a.err)
	}
	return n, nil
}

// sessionRecords puts the results of a batch into the session table, and returns its records that have changed.
func (c *raftCore) sessionRecords(entries []raft.Entry, others map[uint64]answered, results [][]byte) []SystemRecord {
	next := 0
	for i := range entries {
		e := &entries[i]
		if _, ok := others[e.ID.Index]; ok || next >= len(results) {
			continue
		}
		if e.Session != 0 || e.Kind == raft.EntryOnce {
			c.sessions.Store(e, results[next])
		}
		next++
	}
	return c.sessions.TakeRecords()
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

// timeRecord is the System record of a snapshot that holds the log time at its end, so that time does not go back when the log before it is
// gone.
const timeRecord = "log-time"

func encodeTimeRecord(at int64) SystemRecord {
	return SystemRecord{Key: timeRecord, Value: binary.AppendVarint(nil, at)}
}

// logTime reads the log time from a snapshot's records; zero if there is none.
func logTime(records []SystemRecord) int64 {
	for _, record := range records {
		if at, n := binary.Varint(record.Value); record.Key == timeRecord && n > 0 {
			return at
		}
	}
	return 0
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
	if entry.Kind == raft.EntryUnknown {
		return raft.MembershipAt{}, fmt.Errorf("membership in the state machine: %w", ErrUpgrade)
	}
	if entry.Membership == nil {
		return raft.MembershipAt{}, fmt.Errorf("membership in the state machine: %w: entry %v of kind %d is none", storage.ErrCorrupt, entry.ID, entry.Kind)
	}
	return raft.MembershipAt{ID: entry.ID, Membership: entry.Membership}, nil
}
