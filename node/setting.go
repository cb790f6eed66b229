package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quorate/node/raft"
	"quorate/storage"
)

// Setting is what a cluster has agreed on besides its members: leases, or instant failover, which is the default. A lease is the voters'
// promise to help nobody else to lead for a time after they heard from their leader, so that it can answer reads alone (ReadLease). That is why
// nobody can take its place before, also when NATS tells at once that it is gone: a cluster has the one or the other.
type Setting struct {
	// ID is the log id of its entry; zero if no setting was ever changed. It is another one also when the leader has raised the versions in use.
	ID raft.LogID `json:"id"`
	// Lease is how long a voter's promise lasts; zero for instant failover.
	Lease time.Duration `json:"lease_ns"`
}

// SettingChange says what is to be changed of the setting. What it does not name stays.
type SettingChange struct {
	// Lease, when not nil, is how long a voter's promise is to last: at least two heartbeat intervals, at best the election timeout, at most a
	// minute. Zero for instant failover.
	Lease *time.Duration `json:"lease_ns,omitempty"`
	// If, when not nil, is the log id of the setting that the caller saw (Setting.ID): the change is made only if that one is still in force.
	If *raft.LogID `json:"if,omitempty"`
}

// SettingChangedError says that the setting is not the one that the change was meant for.
type SettingChangedError struct {
	// Current is the log id of the setting in force.
	Current raft.LogID
}

func (e *SettingChangedError) Error() string {
	return fmt.Sprintf("the setting has changed meanwhile: it is that of entry %v", e.Current)
}

// Setting returns the newest setting in this node's log. It does not block.
func (n *Node) Setting() Setting { return shownSetting(n.watch.state.Load().setting) }

func shownSetting(at raft.SettingAt) Setting { return Setting{ID: at.ID, Lease: at.Setting.Lease} }

// longestLease is what may be asked for. When a leader is lost its cluster waits for so long, and nobody can tell it not to: that takes a leader.
const longestLease = time.Minute

// ChangeSetting changes the replicated setting, and returns the log id of its entry when that is committed and applied on the leader. To ask
// for what is in force already changes nothing. A node that does not lead hands it on to the leader.
//
// Leases begin when all voters of a majority have the new setting on their disks, and end, before that of instant failover is committed anywhere,
// at once.
//
// Errors: ErrConfig for a lease that cannot be, *SettingChangedError, raft.ErrSettingPending while an earlier change is under way,
// raft.ErrTransferring, raft.ErrNotReady and *NotLeaderError: nothing was changed; ErrLost if it was overwritten; ErrUnknownOutcome.
func (n *Node) ChangeSetting(ctx context.Context, change SettingChange) (raft.LogID, error) {
	var id raft.LogID
	err := n.onLeader(ctx, "change-setting", change, &id, func() (err error) {
		id, err = n.changeSetting(ctx, change)
		return err
	})
	if err != nil {
		return id, fmt.Errorf("change the setting: %w", err)
	}
	return id, nil
}

// changeSetting does it on the leader.
func (n *Node) changeSetting(ctx context.Context, change SettingChange) (raft.LogID, error) {
	return n.appendOwn(ctx, "raft.setting", func(c *raftCore) (raft.LogID, error) {
		current := c.engine.SettingAt()
		if c.engine.Role() != raft.Leader {
			return raft.LogID{}, c.typed(raft.ErrNotLeading)
		}
		if change.If != nil && *change.If != current.ID {
			return raft.LogID{}, &SettingChangedError{Current: current.ID}
		}
		wanted, err := change.apply(current.Setting, c.cfg.HeartbeatInterval)
		if err != nil {
			return raft.LogID{}, err
		}
		id, err := c.engine.ChangeSetting(time.Now(), wanted)
		if err != nil {
			err = c.typed(err)
		}
		return id, err
	})
}

// apply returns the setting that the change makes of another.
func (change SettingChange) apply(s raft.Setting, heartbeat time.Duration) (raft.Setting, error) {
	if change.Lease != nil {
		s.Lease = *change.Lease
		if s.Lease > 0 && s.Lease < 2*heartbeat {
			return s, fmt.Errorf("%w: a lease of %v would be over before it is renewed: it must be at least two heartbeat intervals of %v", ErrConfig, s.Lease, heartbeat)
		}
		if s.Lease > longestLease {
			return s, fmt.Errorf("%w: with a lease of %v a cluster that loses its leader does nothing for that time: it must be at most %v", ErrConfig, s.Lease, longestLease)
		}
	}
	if err := s.Validate(); err != nil {
		return s, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return s, nil
}

// settingRecord is the System record that holds the newest applied setting: its entry, as it stands in the log.
const settingRecord = "setting"

func encodeSettingRecord(at raft.SettingAt) (SystemRecord, error) {
	entry := raft.Entry{ID: at.ID, Kind: raft.EntrySetting, Setting: &at.Setting}
	if err := storage.SealEntry(&entry); err != nil {
		return SystemRecord{}, fmt.Errorf("encode the setting: %w", err)
	}
	return SystemRecord{Key: settingRecord, Value: entry.Raw}, nil
}

// settingIn returns the setting in a state's records; the zero one if there is none.
func settingIn(records []SystemRecord) (raft.SettingAt, error) {
	for _, record := range records {
		if record.Key != settingRecord {
			continue
		}
		entry, err := storage.OpenEntry(record.Value)
		switch {
		case err == nil && entry.Kind == raft.EntryUnknown:
			err = ErrUpgrade
		case err == nil && entry.Setting == nil:
			err = errors.New("it is none")
		}
		if err != nil {
			return raft.SettingAt{}, fmt.Errorf("setting in the state machine: %w", err)
		}
		return raft.SettingAt{ID: entry.ID, Setting: *entry.Setting}, nil
	}
	return raft.SettingAt{}, nil
}
