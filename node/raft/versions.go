package raft

import "fmt"

// Versions are what nodes must have in common to understand each other. The first of each is zero.
//
// A cluster uses the newest versions that all of its members speak. Its leader raises them, by an entry like any other, when each member has
// told that it speaks more; nothing lowers them. So whatever stands in the log after that entry may be of those versions, and a node that does
// not speak them stops when it meets the entry, before it could misunderstand anything that follows.
type Versions struct {
	// Protocol is that of Quorate's own entries and messages.
	Protocol uint32 `json:"protocol"`
	// Command is that of the state machine's commands.
	Command uint32 `json:"command"`
}

// Protocol is the newest version of entries and messages that this package speaks.
const Protocol = 0

// Within reports whether who speaks other understands all of v.
func (v Versions) Within(other Versions) bool {
	return v.Protocol <= other.Protocol && v.Command <= other.Command
}

func (v Versions) String() string {
	return fmt.Sprintf("protocol %d, commands %d", v.Protocol, v.Command)
}

// common is the newest that both speak, raised the newest that either does.
func (v Versions) common(other Versions) Versions {
	return Versions{Protocol: min(v.Protocol, other.Protocol), Command: min(v.Command, other.Command)}
}

func (v Versions) raised(other Versions) Versions {
	return Versions{Protocol: max(v.Protocol, other.Protocol), Command: max(v.Command, other.Command)}
}

// raiseVersions appends a setting with the newest versions that every member speaks: voters of both sets, and learners too, since they have the same
// log. Who has not answered in this leadership has not told; until it does, or is removed, nothing is raised.
func (e *Engine) raiseVersions() {
	current := e.SettingAt()
	if !e.Serving() || e.leading.transfer != nil || current.ID.Index > e.commit {
		return
	}
	common := e.cfg.Versions
	for _, m := range e.Membership().Members {
		if m.Peer == e.cfg.Self {
			continue
		}
		t := e.leading.targets[m.ID]
		if t == nil || t.suspect || !t.answered {
			return
		}
		common = common.common(t.versions)
	}
	setting := current.Setting
	if setting.Versions = setting.Versions.raised(common); setting == current.Setting {
		return
	}
	e.appendSetting(setting)
}

// EntryUnknown is the kind of an entry that is intact, but of a format that is not known here.
const EntryUnknown EntryKind = 255

// Unknown says why one who speaks v does not understand an entry, or "". To skip or to misread it would let replicas differ.
func (v Versions) Unknown(entry *Entry) string {
	switch {
	case entry.Kind == EntryUnknown:
		return fmt.Sprintf("entry %v is of a format that this version does not know", entry.ID)
	case entry.Kind > newestKind:
		return fmt.Sprintf("entry %v is of kind %d, which this version does not know", entry.ID, entry.Kind)
	case entry.Kind == EntrySetting && !entry.Setting.Versions.Within(v):
		return fmt.Sprintf("since entry %v the cluster uses %v, and this node speaks %v", entry.ID, entry.Setting.Versions, v)
	}
	return ""
}
