package raft

// VoteRequest asks for a vote in Term (paper section 5.2), or, with Pre, whether one would be given: a pre-vote changes
// no state on either side (dissertation section 9.6).
type VoteRequest struct {
	// Term in which the candidate wants to lead. For a pre-vote that is one above its own.
	Term      uint64
	Candidate Peer
	// Last is the candidate's last log id. A voter whose own is greater refuses.
	Last LogID
	Pre  bool
	// Transfer: the leader itself told the candidate to stand, so being in touch with that leader is no reason to refuse.
	Transfer bool
}

// VoteResponse answers a VoteRequest.
type VoteResponse struct {
	From Peer
	// Term is the voter's own. For a granted pre-vote it is the term asked for.
	Term    uint64
	Granted bool
	Pre     bool
	// Removed, if not zero, is the index of a committed configuration that the candidate is no member of: it need not ask again.
	Removed uint64
}

// AppendRequest replicates entries, and without entries is a heartbeat (paper section 5.3).
type AppendRequest struct {
	// Term of the leader.
	Term   uint64
	Leader Peer
	// Prev is the log id that must stand right before Entries.
	Prev    LogID
	Entries []Entry
	// Commit is the leader's commit index. The follower commits no further than what this request verified.
	Commit uint64
	// Successors ranks voters, the most caught up first, as a hint to who should stand when the leader is gone.
	Successors []NodeID
	// Snapshot is the log id of the newest complete snapshot that the leader knows of: what lies at or before it may be purged.
	Snapshot LogID
}

// AppendStatus is the outcome of an AppendRequest.
type AppendStatus uint8

const (
	// AppendMatched: the log agrees with the leader's up to Matched, and that much is durable.
	AppendMatched AppendStatus = 1
	// AppendConflict: Prev is not in the log; Hint says from where to try again.
	AppendConflict AppendStatus = 2
	// AppendRefused: the request's term is older than the follower's; Term tells the newer one.
	AppendRefused AppendStatus = 3
	// AppendInstalling, to an InstallRequest: the snapshot is not installed yet, or could not be had.
	AppendInstalling AppendStatus = 4
	// AppendDamaged, to an InstallRequest: the snapshot is missing or damaged where it is kept.
	AppendDamaged AppendStatus = 5
)

// AppendResponse answers an AppendRequest.
type AppendResponse struct {
	From   Peer
	Term   uint64
	Status AppendStatus
	// Matched, with AppendMatched: everything up to here equals the leader's log and is on the follower's disk.
	Matched LogID
	// Hint, with AppendConflict: the newest log id of the follower that could be in the leader's log as well, its
	// index below that of Prev and its term at most that of Prev.
	Hint LogID
	// Versions are the newest that the follower speaks.
	Versions Versions
}
