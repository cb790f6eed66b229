package storage

import (
	"errors"

	"quorate/node/raft"
)

var (
	// ErrPurged is returned by a LogReader for entries that were purged: only a snapshot holds them now.
	ErrPurged = raft.ErrPurged
	// ErrOutOfRange is returned by a LogReader for entries after the last one.
	ErrOutOfRange = errors.New("log entries are not there yet")
	// ErrCorrupt is wrapped by every error about bytes that are not what was written: a wrong checksum, a gap, a bad
	// encoding. Nothing is repaired silently.
	ErrCorrupt = errors.New("corrupt")
	// ErrNewer is wrapped by errors about what is intact, but of a format that is not known here.
	ErrNewer = errors.New("a newer version is in use: upgrade this node")
	// ErrClosed is returned by a store after Close.
	ErrClosed = errors.New("log store is closed")
)

// LogReader reads the log. Its methods are safe from several goroutines, also beside writes: an entry is visible from
// the moment that Write returned, whether or not it is durable already.
type LogReader interface {
	// Entries appends entries from index lo up to, not including, hi, in order, to a slice of the caller's, which may be nil, and returns
	// that. It stops before their Raw bytes would exceed maxBytes in sum, but gets at least one, unless there is an error. What they refer
	// to is shared: callers must not change it.
	// Errors: ErrPurged, ErrOutOfRange, ErrCorrupt.
	Entries(into []raft.Entry, lo, hi uint64, maxBytes int) ([]raft.Entry, error)
	// Term returns the term of the entry at index. The purged log id itself still has a known term, and so has
	// index 0, the beginning of every log: term 0. Errors: ErrPurged, ErrOutOfRange, ErrCorrupt.
	Term(index uint64) (uint64, error)
	// Last returns the newest log id, or the purged one if the log is empty.
	Last() raft.LogID
	// Purged returns the newest purged log id: the log begins after it.
	Purged() raft.LogID
}

// Write is what RaftCore changes in one step, atomically: after a crash all of it is there, or nothing, and it is there only if
// all writes and purges before it are. What a store shows when it is opened is durable.
type Write struct {
	// Vote, if not nil, replaces the stored vote.
	Vote *raft.Vote
	// TruncateFrom, if not zero, first deletes the entry at this index and all after it.
	TruncateFrom uint64
	// Append are the entries to add after that; they follow on the last one without a gap. Each has its Raw form.
	Append []raft.Entry
}

// Commit is a write on its way to disk.
type Commit interface {
	// Wait blocks until the write, and every write before it, is durable. It is called once, from one goroutine, in
	// the order of the writes. An error is final: the store is broken and must not be written again.
	Wait() error
}

// LogStore is the log of one node in one cluster, with its vote and identity.
//
// Only RaftCore calls the writing methods (Write, Purge, Reset, SetIdentity, SetGenesis), one at a time. Reading is free.
type LogStore interface {
	LogReader

	// Vote returns the newest vote written.
	Vote() raft.Vote
	// Identity returns what SetIdentity stored, and whether there is one.
	Identity() (Identity, bool)
	// SetIdentity stores the identity, durably, before it returns. It is an error to replace another one.
	SetIdentity(Identity) error
	// Genesis returns what SetGenesis stored, and whether there is one.
	Genesis() (Genesis, bool)
	// SetGenesis stores the genesis, durably, before it returns. It is an error to replace another one.
	SetGenesis(Genesis) error

	// Write applies w. On return the change is visible to readers but may not be durable: see Commit.
	// It does not wait for the disk.
	Write(w Write) (Commit, error)
	// Purge deletes the entries up to and including upTo, which must be in the log. It need not be durable on return.
	Purge(upTo raft.LogID) error
	// Reset discards all entries, durably before it returns: the log then begins after to, which need not have been in it. Vote and
	// identity stay. It is for a log that a snapshot has overtaken, or contradicts.
	Reset(to raft.LogID) error
	// Close waits for what is under way and releases the store. Commits not waited for may return an error.
	Close() error
}
