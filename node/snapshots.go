package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nats-io/nats.go"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/objectstore"
)

// snapshots is what RaftCore knows of the cluster's snapshots, and of its own builder and fetcher. It belongs to RaftCore; the two
// goroutines get what they need when they are spawned, and report on a channel.
type snapshots struct {
	// shared is where the cluster's snapshots are kept: the object store, as a rule. nil if there is none.
	shared objectstore.Blobs
	// local is this node's own directory: what is fetched goes there, and, for a state machine in memory, its newest state.
	local *objectstore.Directory
	// held is where this node keeps snapshots for others while there is no JetStream; conn is how they are asked for. nil if there is none.
	held *objectstore.Directory
	conn *nats.Conn
	// newest complete one in shared that this node knows of, with what a next one can build on. Of no use when the engine has forgotten it.
	newest   storage.SnapshotRef
	manifest *objectstore.Manifest
	// localLast is the newest complete one in local, for a state machine in memory.
	localLast raft.LogID

	// building: a builder is at work. wanted: another one is to follow it, for what was asked meanwhile.
	building     bool
	stopBuilder  context.CancelFunc
	builderEnded chan struct{}
	// stopSharing ends what the builder does as leader, of sharingTerm. nil if that is over, or nothing.
	stopSharing context.CancelFunc
	sharingTerm uint64
	// buildStopped: the build that is under way was told to end.
	buildStopped bool
	wanted       bool
	// whole: the next one is built anew and every part of it sent again, because something in the store is damaged.
	whole   bool
	waiting []func(storage.SnapshotRef, error)
	// failures in a row, the last one's words, and when the next attempt is due.
	failures int
	problem  string
	retryAt  time.Time
	// appended is what was appended to the log since the node started, at what the newest snapshot was built from.
	appendedBytes, builtBytes uint64
	builtIndex                uint64

	// fetching is cancelled when another snapshot is offered.
	fetching context.CancelFunc
	status   SnapshotStatus
	// purgeAt is when to look again at what can be purged; syncing: the state machine is being made durable for it.
	purgeAt time.Time
	syncing bool
	// wantDurable is closed when what is applied now is durable: makingDurable are those that the present sync is for.
	wantDurable, makingDurable []chan struct{}
	// durable is the durable applied index of the state machine, as of the last look.
	durable uint64
}

// SnapshotStatus is what a node knows of snapshots.
type SnapshotStatus struct {
	// Index of the newest complete snapshot that the node knows of, and its size in bytes, before compression; Read is what was
	// read of the state for it, less than all if only the difference to another was, Sent what was sent, and Took how long it took to build, if this node built it.
	Index uint64        `json:"index,omitempty"`
	Bytes uint64        `json:"bytes,omitempty"`
	Read  uint64        `json:"read,omitempty"`
	Sent  uint64        `json:"sent,omitempty"`
	Took  time.Duration `json:"took_ns,omitempty"`
	// Building: one is being built. Fetching is the index of the one that is being fetched, FetchedBytes how much of FetchBytes is there.
	Building     bool   `json:"building,omitempty"`
	Fetching     uint64 `json:"fetching,omitempty"`
	FetchedBytes int64  `json:"fetched_bytes,omitempty"`
	FetchBytes   int64  `json:"fetch_bytes,omitempty"`
	// InstalledIndex, InstalledBytes and InstallTook: the newest one that this node installed, its size before compression, and how long that took,
	// from the offer on.
	InstalledIndex uint64        `json:"installed_index,omitempty"`
	InstalledBytes uint64        `json:"installed_bytes,omitempty"`
	InstallTook    time.Duration `json:"install_took_ns,omitempty"`
	// Held: the newest one that this node built is in its own directory, and others get it from there, because there is no JetStream.
	Held bool `json:"held,omitempty"`
	// Problem says why no snapshot could be built or fetched, until one is.
	Problem string `json:"problem,omitempty"`
}

// snapshotEvent is what a builder or fetcher reports: exactly one each.
type snapshotEvent struct {
	built   *built
	fetched *fetched
	synced  *synced
}

// drop is for what RaftCore has ended before: whoever waits is answered, and nothing stays behind.
func (e snapshotEvent) drop(logger *slog.Logger) {
	if e.built != nil {
		e.built.drop()
	}
	if e.fetched != nil {
		e.fetched.drop(logger)
	}
}

// snapshotsDir is the part of the node's directory for snapshots.
const snapshotsDir = "snapshots"

func (n *Node) newSnapshots(ctx context.Context, cluster raft.ClusterID) (snapshots, error) {
	s := snapshots{shared: n.cfg.Snapshots}
	if conn := n.links.snapshotConn(); s.shared == nil && conn != nil {
		bucket, err := objectstore.NewBucket(conn, n.cfg.Prefix+"-"+n.cfg.Cluster, cluster, objectstore.BucketOptions{Replicas: n.cfg.SnapshotReplicas})
		if err != nil {
			return s, fmt.Errorf("snapshots: %w", err)
		}
		s.shared, s.conn = bucket, conn
	}
	if n.cfg.Dir != "" {
		s.local = objectstore.NewDirectory(vfs.Default, filepath.Join(n.cfg.Dir, snapshotsDir))
	}
	if s.conn != nil && s.local != nil {
		s.held = objectstore.NewDirectory(vfs.Default, filepath.Join(n.cfg.Dir, heldDir))
		if err := n.serveParts(ctx, s.conn, cluster, s.held, s.local); err != nil {
			return s, fmt.Errorf("snapshots: %w", err)
		}
	}
	return s, nil
}

// inMemory reports whether the state machine's state is gone after a restart: then local snapshots stand for it.
func (c *raftCore) inMemory() bool {
	_, durable := c.sm.(DurableStateMachine)
	return !durable
}

// Backing off after a failed build.
const (
	firstRetry = time.Second
	mostRetry  = time.Minute
)

// tickSnapshots starts what is due: a build, or a purge.
func (c *raftCore) tickSnapshots(ctx context.Context, now time.Time) {
	if s := &c.snapshots; len(s.waiting) > 0 && c.engine.Role() != raft.Leader { // it led when it was asked
		c.answerBuild(s.waiting, storage.SnapshotRef{}, &NotLeaderError{Leader: c.engine.Leader().ID})
		s.waiting = nil
	}
	c.endSharing()
	if c.dueSnapshot(now) {
		c.build(ctx)
	}
	c.purge(ctx, now)
}

// dueSnapshot: the leader builds for all; a state machine in memory needs one on every node.
func (c *raftCore) dueSnapshot(now time.Time) bool {
	s := &c.snapshots
	if s.building || now.Before(s.retryAt) || c.applied.Index == 0 || (s.shared == nil && s.local == nil) {
		return false
	}
	if _, installing := c.engine.Installing(); c.inMemory() && (installing || c.fetcherWorks()) {
		return false // both would work in the node's own directory, and remove what the other has there
	}
	if len(s.waiting) > 0 || s.wanted {
		// Also before its first own entry is committed: perhaps it takes the snapshot's receiver to commit that.
		return c.engine.Role() == raft.Leader || c.inMemory()
	}
	if c.switches.NoSnapshots {
		return false
	}
	if !c.engine.Serving() && !(c.inMemory() && s.local != nil) {
		return false
	}
	if known := c.engine.SnapshotKnown().Index; known > s.builtIndex && !c.inMemory() {
		s.builtIndex, s.builtBytes = known, s.appendedBytes // another leader built it
	}
	return c.applied.Index-min(c.applied.Index, s.builtIndex) >= c.cfg.SnapshotEntries || s.appendedBytes-s.builtBytes >= c.cfg.SnapshotBytes
}

// takeSnapshotEvent handles what a builder or fetcher reports.
func (c *raftCore) takeSnapshotEvent(e snapshotEvent) error {
	switch {
	case e.built != nil:
		c.builtSnapshot(e.built)
	case e.fetched != nil:
		return c.fetchedSnapshot(e.fetched)
	case e.synced != nil:
		c.snapshots.syncing = false
		for _, done := range c.snapshots.makingDurable {
			close(done)
		}
		c.snapshots.makingDurable = nil
		if e.synced.err != nil {
			return fmt.Errorf("make the state machine durable: %w", e.synced.err)
		}
		c.snapshots.purgeAt = time.Time{}
	}
	return nil
}

// adoptSnapshot takes note of a complete snapshot in the shared store.
func (c *raftCore) adoptSnapshot(ref storage.SnapshotRef, manifest *objectstore.Manifest) {
	s := &c.snapshots
	if ref.Last.Index < s.newest.Last.Index {
		return
	}
	s.newest, s.manifest = ref, manifest
	c.engine.SetSnapshot(ref)
	s.status.Index, s.status.Bytes = ref.Last.Index, ref.Bytes
}

// Snapshot asks for a snapshot of the present state, and returns its reference when it is complete in the object store. A node that
// does not lead hands it on to the leader. Nothing is built twice: the same state gives the same snapshot.
// Errors: ErrNoSnapshots, those of the object store, *NotLeaderError, the context's.
func (n *Node) Snapshot(ctx context.Context) (storage.SnapshotRef, error) {
	var ref storage.SnapshotRef
	err := n.onLeader(ctx, "snapshot", nil, &ref, func() (err error) {
		ref, err = n.snapshotHere(ctx)
		return err
	})
	if err != nil {
		return ref, fmt.Errorf("snapshot: %w", err)
	}
	return ref, nil
}

// ErrNoSnapshots says that there is nowhere to keep snapshots.
var ErrNoSnapshots = errors.New("this node has no place to keep snapshots: it is not connected to NATS, or has no JetStream")

func (n *Node) snapshotHere(ctx context.Context) (storage.SnapshotRef, error) {
	type result struct {
		ref storage.SnapshotRef
		err error
	}
	done := make(chan result, 1)
	_, err := inCore(ctx, n, func(c *raftCore) (struct{}, error) {
		switch {
		case !c.engine.Serving():
			return struct{}{}, c.typed(raft.ErrNotLeading)
		case c.snapshots.shared == nil:
			return struct{}{}, ErrNoSnapshots
		}
		c.snapshots.retryAt = time.Time{}
		c.snapshots.waiting = append(c.snapshots.waiting, func(ref storage.SnapshotRef, err error) { done <- result{ref, err} })
		return struct{}{}, nil
	})
	if err != nil {
		return storage.SnapshotRef{}, err
	}
	select {
	case r := <-done:
		return r.ref, r.err
	case <-ctx.Done():
		return storage.SnapshotRef{}, ctx.Err()
	case <-n.done:
		return storage.SnapshotRef{}, ErrStopped
	}
}
