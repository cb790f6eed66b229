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

// SnapshotRef names one complete snapshot wherever it is kept. It is what InstallSnapshot carries in place of the data.
type SnapshotRef struct {
	// Name of the manifest.
	Name string
	// Digest is the SHA-256 of the manifest's bytes: whoever has the reference can verify all that it leads to.
	Digest [32]byte
	// Last is the log id that the snapshot goes up to.
	Last raft.LogID
	// Bytes is the size of the state machine's streams, before compression.
	Bytes uint64
}
