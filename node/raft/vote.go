package raft

import "fmt"

// Vote is the hard state of a node: the newest term it has seen, and whom it voted for in that term.
// It is on disk before any message that depends on it leaves (paper section 5.1, figure 2).
type Vote struct {
	Term uint64
	// For is the candidate that has this node's vote in Term, or empty.
	For NodeID
}

// String returns "term" or "term for id".
func (v Vote) String() string {
	if v.For == "" {
		return fmt.Sprintf("term %d", v.Term)
	}
	return fmt.Sprintf("term %d for %s", v.Term, v.For)
}
