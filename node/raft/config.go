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
}

// MembershipAt is a configuration and the log id of its entry. That of the genesis is zero.
type MembershipAt struct {
	ID         LogID
	Membership *Membership
}
