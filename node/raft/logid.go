package raft

import (
	"cmp"
	"fmt"
)

// LogID names one entry of the log: the term of the leader that made it, and its position.
// Two logs that hold the same LogID hold the same entries up to there (Log Matching, paper section 5.3).
// The zero LogID is the beginning of every log, before its first entry, which has index 1.
type LogID struct {
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"`
}

// Compare orders log ids by term, then by index: the order of "at least as up to date" (paper section 5.4.1).
func (id LogID) Compare(other LogID) int {
	if c := cmp.Compare(id.Term, other.Term); c != 0 {
		return c
	}
	return cmp.Compare(id.Index, other.Index)
}

// Less reports whether id is less up to date than other.
func (id LogID) Less(other LogID) bool { return id.Compare(other) < 0 }

// String returns "term.index".
func (id LogID) String() string { return fmt.Sprintf("%d.%d", id.Term, id.Index) }
