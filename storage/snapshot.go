package storage

import "quorate/node/raft"

// SystemRecord is one record of the node's own (membership, sessions), stored with the state machine's state. An empty Value
// deletes the record.
type SystemRecord struct {
	Key   string
	Value []byte
}

// SnapshotMeta describes a snapshot.
type SnapshotMeta struct {
	// Last is the log id that the snapshot goes up to.
	Last raft.LogID
	// Membership at Last, and the log id of its entry.
	Membership   *raft.Membership
	MembershipID raft.LogID
	// System holds the node's own records at Last. A durable machine stores them with the restored state.
	System []SystemRecord
}

// SnapshotRef names one complete snapshot wherever it is kept.
type SnapshotRef = raft.SnapshotRef
