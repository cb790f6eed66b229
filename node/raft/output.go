package raft

// ReplyTo is a caller's token for a request that waits for its answer. The engine gives it back and looks at nothing in it.
type ReplyTo uint64

// ReadID is a caller's token for a read that waits.
type ReadID uint64

// Output is what must be done after a step, in this order: Write, then everything else. Nothing in it depends on a
// write that is not durable yet, save that workers may send entries of Write before they are (rule 1 of the design: a
// leader replicates while its own fsync is under way).
type Output struct {
	// Write must be given to the log store in one atomic step. When it is durable, the engine wants to hear its Seq.
	Write *Write
	// Votes are requests to send to peers.
	Votes []SendVote
	// VoteReplies and AppendReplies answer requests.
	VoteReplies   []VoteReply
	AppendReplies []AppendReply
	// Reads that are decided: linearizable once the state machine has applied Index, or failed.
	Reads []ReadReady
	// TimeoutNow are requests to stand at once, and TimeoutNowReplies the answers to such.
	TimeoutNow        []SendTimeoutNow
	TimeoutNowReplies []TimeoutNowReply
	// Fetch, if not nil, is a snapshot to fetch, in place of any that is being fetched. When it is there, and MayInstall, it is to be
	// installed and Installed told, else FetchFailed.
	Fetch *SnapshotRef
	// NeedSnapshot says that a target needs a snapshot newer than the one that can be offered.
	NeedSnapshot bool
	// SnapshotDamaged says that a target found the newest snapshot missing or damaged: it is not offered any more.
	SnapshotDamaged bool
	// Probe, if not nil, is a leader of whom nothing was heard: ask NATS whether it is still there, and tell ProbeAnswer.
	Probe *Peer
	// Replicate says that Replication has changed: workers must be started, stopped or told.
	Replicate bool
	// Changed says that role, term, leader, commit index or membership may have changed.
	Changed bool
	// Halt, if not empty, says why this node must stop, and be upgraded: it was sent what it cannot understand. Nothing else of the Output is to be
	// done then.
	Halt string
	// Violations are messages that contradict what Raft guarantees, such as a truncation of committed entries. They were
	// refused. Somebody lies, or has lost its disk.
	Violations []string
}

// Write is a change to the log and the vote.
type Write struct {
	// Seq numbers the writes of this engine, from 1.
	Seq uint64
	// Vote, if not nil, replaces the stored one.
	Vote *Vote
	// TruncateFrom, if not zero, deletes the entry at that index and all after it, before Append.
	TruncateFrom uint64
	Append       []Entry
}

// SendVote is a vote request and whom to send it to.
type SendVote struct {
	To      Peer
	Request VoteRequest
}

// SendTimeoutNow is a request to stand at once, and whom to send it to.
type SendTimeoutNow struct {
	To      Peer
	Request TimeoutNowRequest
}

// TimeoutNowReply answers a TimeoutNowRequest.
type TimeoutNowReply struct {
	To       ReplyTo
	Response TimeoutNowResponse
}

// VoteReply answers a VoteRequest.
type VoteReply struct {
	To       ReplyTo
	Response VoteResponse
}

// AppendReply answers an AppendRequest.
type AppendReply struct {
	To       ReplyTo
	Response AppendResponse
}

// ReadReady is the outcome of a read.
type ReadReady struct {
	ID ReadID
	// Index that must be applied before the state machine is read.
	Index uint64
	// Lost: leadership ended before a quorum confirmed it.
	Lost bool
}

// Output returns what has to be done since the last call, and forgets it.
func (e *Engine) Output() Output {
	out := e.out
	e.out = Output{}
	if out.Write != nil {
		e.seq = out.Write.Seq
		e.disk.pending[len(e.disk.pending)-1].since = e.now
	}
	return out
}
