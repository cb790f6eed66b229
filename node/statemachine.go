package node

import (
	"context"
	"io"
	"slices"
	"time"

	"quorate/node/raft"
	"quorate/storage"
)

// StateMachine is what a cluster replicates: the user's own code. Every node applies the same commands in the same
// order to its own instance, and must come to the same state and the same results.
//
// Apply, Snapshot, Restore and Close are called by one goroutine (RaftCore), never two at a time. The machine's own
// methods for reading may be called by anyone at any time, also during Apply: guarding that is the machine's business.
//
// Determinism: results and state may depend on the commands, their log ids and their log time only. Not on the wall
// clock, on random numbers, on the iteration order of a map, or on the machine it runs on.
//
// A machine that keeps its state in memory implements this interface and nothing more: at every start it begins empty,
// and the node restores the newest snapshot and applies the log after it. A machine with a state on disk implements
// DurableStateMachine as well.
type StateMachine interface {
	// Apply applies a batch and returns one result for each command, in order; a result may be nil. Results go to
	// whoever proposed the command; an outcome such as "condition not met" is a result, not an error.
	// An error, or a panic, means that this node's state can no longer be trusted: the node stops with it, and the
	// program that embeds it lives on.
	// Apply should return within milliseconds: one command must stay well below an election timeout.
	Apply(batch Batch) (results [][]byte, err error)

	// Snapshot returns a read-only view of the state as it is now. It must return at once; the view is read later, by
	// another goroutine, while Apply goes on.
	Snapshot() (Snapshot, error)

	// Restore replaces the whole state by what a Snapshot's WriteTo wrote. If it fails, the old state must be intact;
	// a machine with a state on disk must survive a crash at any instant with either the old state or the new.
	Restore(ctx context.Context, meta SnapshotMeta, r io.Reader) error

	// Close releases what the machine holds. Nothing is called after it.
	Close() error
}

// DurableStateMachine is a StateMachine whose state survives a restart. It stores each Batch's Last and Records
// atomically with the changes of its commands: after a crash it is at the end of some batch, never inside one.
type DurableStateMachine interface {
	StateMachine

	// Applied returns what the state on disk includes, as of the newest batch that is durable now. It is called when
	// the node starts, before any other method, and at times while it runs.
	Applied() (Applied, error)

	// Sync makes all applied batches durable and returns when they are. The machine may do so by itself at any time;
	// it need not do so after each batch, since the log keeps what the state has not made durable.
	Sync(ctx context.Context) error
}

// FailingStateMachine is a StateMachine that can fail between two calls: by work that it does in the background.
type FailingStateMachine interface {
	StateMachine

	// OnFailure is called once, when the node starts. The machine calls tell when its state can no longer be trusted, from any goroutine,
	// and the node stops with that error. tell does not block, and only its first call counts. The machine may call it during OnFailure,
	// and until Close has returned.
	OnFailure(tell func(error))
}

// Batch is a run of committed log entries, to be applied in one step.
type Batch struct {
	// Commands to apply, in log order. May be empty: entries that are none of the machine's business count too.
	Commands []Command
	// Last is the log id of the batch's last entry. A durable machine stores it with the state.
	Last raft.LogID
	// System holds records of the node's own that do not depend on results. See Records.
	System []SystemRecord

	// sessions gives the records that depend on the results.
	sessions func(results [][]byte) []SystemRecord
}

// Records returns the node's own records (membership, sessions) that belong to this batch, once its results are known. A durable
// machine calls it once, right before it makes the batch's changes take effect, and stores what it returns in the same atomic write, by
// key; it gives them back in Applied. Other machines need not call it, and no machine looks inside.
func (b Batch) Records(results [][]byte) []SystemRecord {
	if b.sessions == nil {
		return b.System
	}
	return append(slices.Clip(b.System), b.sessions(results)...)
}

// SystemRecord is one record of the node's own, stored with the state. An empty Value deletes the record.
type SystemRecord = storage.SystemRecord

// Command is one committed command.
type Command struct {
	// ID is the log id; its index is unique, never reused, and grows from command to command.
	ID raft.LogID
	// Time is the log time: the leader's clock when the command was proposed, never less than that of the command
	// before. The same on all nodes.
	Time time.Time
	// Data is what was proposed. It is shared and must not be changed; a machine may keep it.
	Data []byte
}

// Applied says up to where a durable state machine's state on disk goes.
type Applied struct {
	// Last is the Batch.Last of the newest durable batch, or zero for a state that nothing was applied to.
	Last raft.LogID
	// System holds the newest value of every System record, in ascending order of keys.
	System []SystemRecord
}

// Snapshot is a read-only view of a state machine at one log id.
type Snapshot interface {
	// WriteTo writes the whole state. It runs beside Apply, in a goroutine of its own.
	WriteTo(ctx context.Context, w io.Writer) error
	// Close releases the view. It is called once, whether or not WriteTo was.
	Close() error
}

// DeltaSnapshot is a Snapshot that can also write only what changed. The node then keeps earlier layers where they are and uploads
// the difference, and now and then a whole state again.
//
// Restore of such a machine reads the layers one after the other from its one reader: the whole state first, then each
// difference in ascending order of log ids. A layer must show its own end.
type DeltaSnapshot interface {
	Snapshot
	// WriteDeltaTo writes what changed after the entry at since was applied. It runs like WriteTo. It returns ErrNoDelta, before it
	// has written anything, if it cannot tell: then the whole state is written.
	WriteDeltaTo(ctx context.Context, since raft.LogID, w io.Writer) error
}

// SnapshotMeta describes a snapshot.
type SnapshotMeta = storage.SnapshotMeta
