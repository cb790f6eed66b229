package raft

import (
	"errors"
	"time"
)

// Setting is what a cluster has agreed on besides its members: either instant failover, which is the default, or leases; and the versions in use.
type Setting struct {
	// Lease is for how long a voter promises, after each message of its leader and after its own start, to help nobody else to
	// lead. Zero: no leases, but instant failover.
	Lease time.Duration
	// Versions are in use. Only the engine changes them.
	Versions Versions
}

// MaxLease bounds what is believed of a setting: a cluster that waits longer than this for a leader is of no use.
const MaxLease = time.Hour

// SettingAt is a setting and the log id of its entry. That of a cluster in which none was ever changed is zero.
type SettingAt struct {
	ID      LogID
	Setting Setting
}

// ErrSettingPending says that an earlier change of the setting is not committed yet: one at a time.
var ErrSettingPending = errors.New("an earlier change of the setting is still under way")

// Validate reports what is wrong with a setting that came from outside.
func (s Setting) Validate() error {
	if s.Lease < 0 || s.Lease > MaxLease {
		return errors.New("setting: lease out of bounds")
	}
	return nil
}

// SettingAt returns the newest setting in the log, committed or not, and where it stands.
func (e *Engine) SettingAt() SettingAt { return e.settings[len(e.settings)-1] }

// ChangeSetting appends a setting, and returns its log id. The present one appends nothing and returns that of its entry. Turning
// leases off ends the leader's own at once; the voters keep their promises until it is committed. The versions stay, whatever s says.
func (e *Engine) ChangeSetting(now time.Time, s Setting) (LogID, error) {
	e.step(now)
	current := e.SettingAt()
	switch {
	case e.leading == nil:
		return LogID{}, ErrNotLeading
	case e.leading.transfer != nil:
		return LogID{}, ErrTransferring
	case !e.Serving():
		return LogID{}, ErrNotReady
	case current.ID.Index > e.commit:
		return LogID{}, ErrSettingPending
	}
	if err := s.Validate(); err != nil {
		return LogID{}, err
	}
	if s.Versions = current.Setting.Versions; s == current.Setting {
		return current.ID, nil
	}
	return e.appendSetting(s), nil
}

func (e *Engine) appendSetting(s Setting) LogID {
	id := LogID{Term: e.vote.Term, Index: e.log.last.Index + 1}
	e.appendEntry(Entry{ID: id, Kind: EntrySetting, Setting: &s})
	e.out.Replicate = true
	e.advanceCommit()
	return id
}

// trimSettings forgets settings older than the newest committed one.
func (e *Engine) trimSettings() {
	n := 0
	for n+1 < len(e.settings) && e.settings[n+1].ID.Index <= e.commit {
		n++
	}
	e.settings = e.settings[n:]
}
