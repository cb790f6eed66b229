package node

import (
	"time"

	"quorate/node/raft"
)

// Role is what a node is in its cluster now.
type Role string

// The roles of a node.
const (
	RoleWaiting   Role = "waiting" // for the genesis
	RoleFollower  Role = "follower"
	RoleCandidate Role = "candidate" // standing for election, or asking in a pre-vote
	RoleLeader    Role = "leader"
	RoleLearner   Role = "learner"
	RoleStopped   Role = "stopped"
)

// Status is what a node knows of itself and its cluster at one moment. Its JSON form is what the status subject and
// `quorate status --output json` give.
type Status struct {
	Cluster     string      `json:"cluster"`
	ClusterID   string      `json:"cluster_id,omitempty"`
	ID          raft.NodeID `json:"id"`
	Incarnation string      `json:"incarnation"`
	Boot        string      `json:"boot"`
	Role        Role        `json:"role"`
	Term        uint64      `json:"term"`
	// Leader, or empty if none is known.
	Leader raft.NodeID `json:"leader,omitempty"`
	// Serving: this node leads, and an entry of its own term is committed, so that it takes writes and reads.
	Serving bool `json:"serving"`
	// WaitingFor lists the members without whose answer the genesis cannot be agreed.
	WaitingFor []raft.NodeID `json:"waiting_for,omitempty"`

	// MembershipID is the log id of the membership in force; zero for the genesis.
	MembershipID raft.LogID `json:"membership_id"`
	// Setting is what the cluster has agreed on besides its members.
	Setting Setting `json:"setting"`
	// Versions are in use in the cluster, as far as this node has applied its log; Speaks are the newest that it speaks.
	Versions raft.Versions `json:"versions"`
	Speaks   raft.Versions `json:"speaks"`
	// Transferring: this leader is handing over. Removed: this node is no member any more, as a voter told it or its own log says.
	Transferring bool `json:"transferring,omitempty"`
	Removed      bool `json:"removed,omitempty"`

	Members []MemberStatus `json:"members,omitempty"`

	LastIndex      uint64 `json:"last_index"`
	DurableIndex   uint64 `json:"durable_index"`
	CommittedIndex uint64 `json:"committed_index"`
	AppliedIndex   uint64 `json:"applied_index"`
	PurgedIndex    uint64 `json:"purged_index"`
	// OldestEntryAge is the log time that has passed since the oldest entry in the log was proposed: what a follower may be away for
	// without needing a snapshot. It should be well above Snapshot.InstallTook.
	OldestEntryAge time.Duration  `json:"oldest_entry_age_ns,omitempty"`
	Snapshot       SnapshotStatus `json:"snapshot"`
	MaxEntryBytes  int            `json:"max_entry_bytes"`

	// QuorumAckAge, on a leader, is how long ago a quorum last acknowledged it, in nanoseconds.
	QuorumAckAge time.Duration `json:"quorum_ack_age_ns,omitempty"`
	// LeaseLeft, on a leader that has a lease, is how long it lasts unless it is renewed, which each heartbeat does.
	LeaseLeft time.Duration `json:"lease_left_ns,omitempty"`

	NATS NATSStatus `json:"nats"`
	// Refused counts messages that were refused, by reason.
	Refused map[string]uint64 `json:"refused,omitempty"`
	// Warnings are what an operator should look at, in words.
	Warnings []string `json:"warnings,omitempty"`
	// Error is why the node stopped, if it did.
	Error string `json:"error,omitempty"`
}

// MemberStatus is one member of the configuration. Matched, Reachable and Speaks are known on the leader only.
type MemberStatus struct {
	ID          raft.NodeID `json:"id"`
	Incarnation string      `json:"incarnation"`
	Voter       bool        `json:"voter"`
	// Outgoing: it votes in the set that a change under way replaces.
	Outgoing  bool   `json:"outgoing,omitempty"`
	Matched   uint64 `json:"matched,omitempty"`
	Reachable bool   `json:"reachable,omitempty"`
	// Speaks are the newest versions that it speaks, if it has answered this leader.
	Speaks *raft.Versions `json:"speaks,omitempty"`
}

// NATSStatus is the state of the node's NATS connections.
type NATSStatus struct {
	Connected     bool   `json:"connected"`
	URL           string `json:"url,omitempty"`
	Disconnects   uint64 `json:"disconnects"`
	Reconnects    uint64 `json:"reconnects"`
	SlowConsumers uint64 `json:"slow_consumers"`
}
