package raft

import (
	"math/rand/v2"
	"time"
)

// Config says who an engine is and how patient.
type Config struct {
	Self Peer
	// HeartbeatInterval is how often a leader makes itself known when it has nothing to replicate.
	HeartbeatInterval time.Duration
	// ElectionTimeout is the least time without a leader before a node stands; the actual one is drawn from
	// [ElectionTimeout, 2*ElectionTimeout). A leader without a quorum steps down after ElectionTimeout.
	ElectionTimeout time.Duration
	// Versions are the newest that this node speaks.
	Versions Versions
	// ClockDrift is the part of a lease, in percent, by which a leader gives it up early, because its clock may run slower than a
	// voter's; 0 for 10.
	ClockDrift int
	// Rand is the source of randomness. The engine has no other.
	Rand *rand.Rand
}

// Restored is what an engine begins with: what was on disk.
type Restored struct {
	Vote Vote
	Log  LogView
	// Committed is known to be committed already: the state machine's durable last applied id, or the beginning of the
	// log, whichever is greater.
	Committed LogID
	// Memberships in log order: the newest at or below Committed first, then those of later entries.
	Memberships []MembershipAt
	// Settings likewise; none if no setting was ever changed.
	Settings []SettingAt
}

// MembershipAt is a configuration and the log id of its entry. That of the genesis is zero.
type MembershipAt struct {
	ID         LogID
	Membership *Membership
}
