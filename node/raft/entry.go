package raft

import "fmt"

// EntryKind says what an entry asks of those who apply it. A node that meets a kind it does not know stops: to skip it
// would let replicas differ.
type EntryKind uint8

const (
	// EntryBlank carries nothing. A new leader appends one to commit what earlier terms left (paper section 8).
	EntryBlank EntryKind = 1
	// EntryCommand carries a command for the state machine.
	EntryCommand EntryKind = 2
	// EntryMembership carries a configuration, which takes effect when it is appended (paper section 6).
	EntryMembership EntryKind = 3
	// EntrySession registers a client session, whose id is the entry's index.
	EntrySession EntryKind = 4
	// EntrySetting changes a replicated setting of the cluster.
	EntrySetting EntryKind = 5
	// EntryOnce carries a command with an id of its proposer's, under which it takes effect once within a time.
	EntryOnce EntryKind = 6

	newestKind = EntryOnce
)

// Entry is one record of the replicated log.
//
// The engine reads ID, Kind, Membership and Setting only. Payload and encoded form pass through it untouched.
type Entry struct {
	ID   LogID
	Kind EntryKind
	// Time is the log time: nanoseconds since 1970 by the leader's clock, never less than that of the entry before.
	// State machines use it in place of a clock, so that replicas agree.
	Time int64
	// Session and Sequence make a proposal exactly-once; zero for a proposal without a session. LowWater is the
	// sequence below which the client has all its answers.
	Session, Sequence, LowWater uint64
	// Data is the payload, opaque to consensus. It must not be changed once the entry has been handed over.
	Data []byte
	// Membership is the decoded payload of an EntryMembership, else nil.
	Membership *Membership
	// Setting is the decoded payload of an EntrySetting, else nil.
	Setting *Setting
	// Raw is the encoded form with its checksum: made once by the leader, then the same bytes on every wire and disk.
	Raw []byte
}

// String names the entry for logs and tests.
func (e Entry) String() string {
	switch e.Kind {
	case EntryBlank:
		return e.ID.String() + " blank"
	case EntryCommand:
		return fmt.Sprintf("%v %q", e.ID, e.Data)
	case EntryMembership:
		return fmt.Sprintf("%v %v", e.ID, e.Membership)
	default:
		return fmt.Sprintf("%v kind %d", e.ID, e.Kind)
	}
}
