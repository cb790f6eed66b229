package node

import (
	"fmt"

	"quorate/node/raft"
	"quorate/storage"
)

// ErrUpgrade is wrapped by the error of a node that met what it does not understand: an entry or snapshot of a newer version of Quorate, or of the
// commands of the state machine (Config.CommandVersion). It took no part of it, and goes on from there when it is started in that version.
var ErrUpgrade = storage.ErrNewer

// Versions returns the versions that the cluster uses, as far as this node has applied its log: every member speaks them, and every later leader
// knows that. It may propose commands of that version, and no newer ones. It does not block.
//
// The leader raises them, at the latest a heartbeat interval after the last member was seen to speak more; nothing lowers them. So a rolling upgrade
// replaces one node after the other, in any order, and what is new begins when the last one is there.
func (n *Node) Versions() raft.Versions { return n.watch.state.Load().versions }

// speaks are the newest versions that this node speaks.
func (c *Config) speaks() raft.Versions {
	return raft.Versions{Protocol: raft.Protocol, Command: c.CommandVersion}
}

// settingIn returns the setting in a state's records, and refuses one by which the cluster uses what this node does not speak. Nothing else of
// such a state can be trusted to be understood, so this is looked at first.
func (c *Config) settingIn(records []SystemRecord) (raft.SettingAt, error) {
	at, err := settingIn(records)
	if err != nil {
		return at, err
	}
	return at, c.checkEntry(&raft.Entry{ID: at.ID, Kind: raft.EntrySetting, Setting: &at.Setting})
}

// checkEntry refuses an entry that this node does not understand.
func (c *Config) checkEntry(entry *raft.Entry) error {
	if unknown := c.speaks().Unknown(entry); unknown != "" {
		return fmt.Errorf("%s: %w", unknown, ErrUpgrade)
	}
	return nil
}
