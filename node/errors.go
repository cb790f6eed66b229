package node

import (
	"errors"
	"fmt"

	"quorate/node/raft"
)

var (
	// ErrBusy says that the node has more waiting work than it takes on. Nothing was proposed; try again later.
	ErrBusy = errors.New("node is busy: too many proposals are waiting")
	// ErrStopped says that the node was closed or has failed. See Node.Err for the cause.
	ErrStopped = errors.New("node is stopped")
	// ErrUnknownOutcome says that a proposal was handed over, but whether it was, or will be, committed is not known:
	// time ran out, the leader changed or the node stopped before the answer.
	ErrUnknownOutcome = errors.New("outcome unknown: the proposal may or may not take effect")
	// ErrLost says that a proposal did not take effect and never will: another leader's entry stands in its place.
	ErrLost = errors.New("proposal was lost: another leader overwrote it; it did not take effect")
	// ErrNotInitialized says that the cluster's genesis is not agreed yet.
	ErrNotInitialized = errors.New("cluster is not initialized yet")
	// ErrSessionExpired says that a session is not known any more, or its sequence number is below what its client acknowledged: the
	// command did not take effect now. Whether an earlier attempt did is not known.
	ErrSessionExpired = errors.New("session is not known or has expired")
	// ErrNoDelta is returned by DeltaSnapshot.WriteDeltaTo when only the whole state can be written.
	ErrNoDelta = errors.New("the changes since that log id are not known")
)

// NotLeaderError says that this node does not lead. Nothing was proposed or read.
type NotLeaderError struct {
	// Leader is the leader as far as this node knows, or empty.
	Leader raft.NodeID
}

func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return "not leader (no leader is known)"
	}
	return fmt.Sprintf("not leader (leader is %s)", e.Leader)
}

// TooLargeError says that a command is larger than the cluster's entries may be, or than the leader's NATS server takes now.
type TooLargeError struct {
	// Limit is zero if it is the leader's, and this node does not lead.
	Size, Limit int
}

func (e *TooLargeError) Error() string {
	if e.Limit == 0 {
		return fmt.Sprintf("command of %d bytes is too large for the NATS server of the leader: raise its max_payload", e.Size)
	}
	return fmt.Sprintf("command of %d bytes is too large: the limit is %d bytes", e.Size, e.Limit)
}
