package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime/debug"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/objectstore"
	"quorate/telemetry"
)

// built is what a snapshot builder reports.
type built struct {
	// traced is for the log: it names the trace of the work, if there is one.
	traced   context.Context
	ref      storage.SnapshotRef
	manifest *objectstore.Manifest
	// local is the log id of the snapshot in the node's own directory, if one was written there.
	local raft.LogID
	// held: it is in the node's own directory, because there is no JetStream.
	held bool
	// found: it was in shared already, as another node had built it.
	found bool
	stats objectstore.Stats
	took  time.Duration
	// waiting are those who asked for it.
	waiting []func(storage.SnapshotRef, error)
	// wanted: a target needs it, whoever else asked. whole: it was to be built anew, trusting nothing that is there.
	wanted, whole bool
	// index and bytes of the log when it was begun.
	index, bytes uint64
	err          error
}

// storePatience is how long one part is tried with an object store that does not answer, before that is said in the status. What was sent or
// fetched until then is not lost.
const storePatience = 20 * time.Second

// maxLayers is how many differences may follow a whole state before it is written anew.
const maxLayers = 8

// builder builds one snapshot and ends. It reads a view of the state machine, which RaftCore took, and never the state machine itself.
type builder struct {
	cluster raft.ClusterID
	// maxEntryBytes is the largest command that the cluster takes.
	maxEntryBytes uint64
	// shared, when not nil, gets the snapshot; local, when not nil, gets it before that.
	shared objectstore.Blobs
	// held, when not nil, gets it in place of shared while there is no JetStream.
	held  *objectstore.Directory
	local *objectstore.Directory
	// leads, when not nil, ends with the leadership in which shared or held is written: who leads next writes there, and removes what is old.
	leads context.Context
	view  Snapshot
	meta  storage.SnapshotMeta
	// base is the newest complete snapshot in shared, if it is known: what it has is not sent again.
	base *objectstore.Manifest
	// whole: base is not to be trusted.
	whole bool
	// rate bounds how fast the view is read, in bytes a second.
	rate int
	// telemetry gets spans of the work, metrics how much is moved.
	telemetry *telemetry.Telemetry
	metrics   *metrics
	// keep are the log ids of snapshots that targets are fetching now.
	keep []raft.LogID
	// serves, if not zero, is the least index of a snapshot that would do: if shared has one already, none is built.
	serves uint64
}

// build takes a view of the state machine and spawns the builder. It does not wait.
func (c *raftCore) build(ctx context.Context) {
	s := &c.snapshots
	result := &built{traced: context.Background(), waiting: s.waiting, index: c.applied.Index, bytes: s.appendedBytes}
	result.wanted, result.whole = s.wanted, s.whole
	s.waiting, s.wanted = nil, false
	if s.newest != c.engine.Snapshot() { // of an earlier leadership: what is there now is looked up
		s.newest, s.manifest = storage.SnapshotRef{}, nil
	}
	if s.newest.Last == c.applied && !s.whole { // nothing was applied since
		c.answerBuild(result.waiting, s.newest, nil)
		c.engine.SetSnapshot(s.newest)
		s.builtIndex, s.builtBytes = result.index, result.bytes
		return
	}
	view, err := snapshotSafely(c.sm)
	if err != nil {
		result.err = fmt.Errorf("state machine: %w", err)
		c.builtSnapshot(result)
		return
	}
	b := &builder{
		cluster: c.genesis.ClusterID(), maxEntryBytes: min(c.genesis.MaxEntryBytes, math.MaxInt32), view: view, base: s.manifest, whole: s.whole, rate: c.cfg.SnapshotRate, telemetry: c.cfg.Telemetry, metrics: c.metrics,
		meta: storage.SnapshotMeta{
			Last: c.applied, Membership: c.appliedMembership.Membership, MembershipID: c.appliedMembership.ID, System: c.systemRecords(),
		},
	}
	if c.engine.Role() == raft.Leader {
		b.shared, b.held = s.shared, s.held
		if len(result.waiting) == 0 && result.wanted {
			b.serves = max(1, c.log.Purged().Index)
		}
		for _, t := range c.engine.Targets() {
			b.keep = append(b.keep, t.Installing)
		}
	}
	if c.inMemory() {
		b.local = s.local
	}
	s.building, s.whole = true, false
	s.status.Building = true
	ctx, s.stopBuilder = context.WithCancel(ctx)
	stop := s.stopBuilder
	s.stopSharing = nil
	if b.shared != nil {
		b.leads, s.stopSharing = context.WithCancel(ctx)
		s.sharingTerm = c.engine.Vote().Term
	}
	ended := make(chan struct{})
	s.builderEnded = ended
	c.group.Go(func() {
		defer close(ended)
		defer stop()
		begun := time.Now()
		ctx, span := traceWork(ctx, b.telemetry, "raft.snapshot.build", onBuilder)
		b.run(ctx, result)
		endSnapshot(span, result.index, result.err)
		result.traced = span.In(context.Background())
		result.took = time.Since(begun)
		select {
		case c.in.snapshot <- timed[snapshotEvent]{snapshotEvent{built: result}, c.metrics.now()}:
		case <-c.ended:
			result.drop()
		}
	})
}

// drop answers those who wait when RaftCore has ended.
func (r *built) drop() {
	for _, answer := range r.waiting {
		answer(storage.SnapshotRef{}, ErrStopped)
	}
}

// stopBuild has a build that is under way end soon. Its failure is then no problem of anybody's.
func (s *snapshots) stopBuild() {
	s.stopBuilder()
	s.buildStopped = true
}

// endSharing ends what a builder does for others, when the leadership in which it began has ended. A snapshot of the node's own goes on.
func (c *raftCore) endSharing() {
	s := &c.snapshots
	if !s.building || s.stopSharing == nil || c.engine.Role() == raft.Leader && c.engine.Vote().Term == s.sharingTerm {
		return
	}
	s.stopSharing()
	s.stopSharing = nil
	s.buildStopped = true
}

// endBuilder ends a build that is under way and waits for it: its view must be gone before the state is replaced.
func (c *raftCore) endBuilder() {
	if c.snapshots.building {
		c.snapshots.stopBuild()
		for {
			select {
			case e := <-c.in.snapshot: // perhaps it waits to report
				c.taken.snapshot = append(c.taken.snapshot, e)
			case <-c.snapshots.builderEnded:
				return
			}
		}
	}
}

// systemRecords are all records of the node's own, as they go into a snapshot.
func (c *raftCore) systemRecords() []SystemRecord {
	records := append(c.sessions.AllRecords(), encodeTimeRecord(c.appliedTime))
	if c.appliedMembership.ID != (raft.LogID{}) {
		if record, err := encodeMembershipRecord(c.appliedMembership); err == nil {
			records = append(records, record)
		}
	}
	if c.appliedSetting.ID != (raft.LogID{}) {
		if record, err := encodeSettingRecord(c.appliedSetting); err == nil {
			records = append(records, record)
		}
	}
	return records
}

func snapshotSafely(sm StateMachine) (view Snapshot, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return sm.Snapshot()
}

// run builds, and closes the view.
func (b *builder) run(ctx context.Context, result *built) {
	defer func() {
		if p := recover(); p != nil {
			result.err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		result.err = errors.Join(result.err, b.view.Close())
	}()
	if b.local != nil {
		if _, _, _, err := b.write(ctx, b.local, nil); err != nil {
			result.err = fmt.Errorf("write the local snapshot: %w", err)
			return
		}
		result.local = b.meta.Last
		if err := sweepSnapshots(ctx, b.local, b.cluster, 1, nil, 0); err != nil {
			result.err = fmt.Errorf("remove old local snapshots: %w", err)
			return
		}
	}
	if b.shared == nil {
		return
	}
	sharing, end := context.WithCancel(ctx)
	defer end()
	if b.leads != nil {
		defer context.AfterFunc(b.leads, end)()
	}
	err := b.share(sharing, result)
	if err != nil && b.local != nil && sharing.Err() != nil && ctx.Err() == nil { // the node's own is complete
		result.ref, result.manifest, err = storage.SnapshotRef{}, nil, nil
	}
	result.err = err
}

// share builds the snapshot for others, or finds one that will do.
func (b *builder) share(ctx context.Context, result *built) error {
	// How long what no snapshot names may stay. Nobody else writes to the node's own directory.
	grace := 10 * time.Minute
	if b.held != nil {
		if _, err := b.shared.Stat(ctx, "jetstream"); objectstore.WithoutJetStream(err) {
			b.shared, grace, result.held = b.held, 0, true
		}
		// Of what was held before, two stay while it is needed, and nothing that a failed build has left.
		newest := 0
		if result.held {
			newest = 2
		}
		if err := sweepSnapshots(ctx, b.held, b.cluster, newest, b.keep, 0); err != nil {
			return fmt.Errorf("remove old snapshots: %w", err)
		}
	}
	if b.base == nil && !b.whole {
		ref, base, err := newestSnapshot(ctx, b.shared, b.cluster)
		switch {
		case errors.Is(err, objectstore.ErrNotFound):
		case err != nil:
			return err
		case base.Meta.Last.Index <= b.meta.Last.Index:
			b.base = base
			if b.serves > 0 && base.Meta.Last.Index >= b.serves {
				result.ref, result.manifest, result.found = ref, base, true
				return nil
			}
		}
	}
	if b.whole {
		b.base = nil
	}
	var err error
	result.ref, result.manifest, result.stats, err = b.write(ctx, b.shared, b.base)
	if err == nil || noRoom(err) { // else there is perhaps for the next attempt, without what earlier ones have left
		// What cannot be removed now can be later.
		_ = sweepSnapshots(ctx, b.shared, b.cluster, keptSnapshots, b.keep, grace)
	}
	return err
}

// keptSnapshots is how many of the newest ones stay in the object store.
const keptSnapshots = 2

// noRoom reports whether a store may lack room. It lacks something, and to try again soon will not help.
func noRoom(err error) bool {
	var unavailable *objectstore.UnavailableError
	return errors.As(err, &unavailable) && unavailable.Lasting || vfs.IsNoSpaceError(err)
}

// write stores the view in a snapshot: as what changed since the base, where that can be told and is worth it, or whole.
func (b *builder) write(ctx context.Context, blobs objectstore.Blobs, base *objectstore.Manifest) (storage.SnapshotRef, *objectstore.Manifest, objectstore.Stats, error) {
	delta, ok := b.view.(DeltaSnapshot)
	if ok && base != nil && base.Meta.Last.Index < b.meta.Last.Index && worthDelta(base) {
		ref, manifest, stats, err := b.upload(ctx, blobs, base.Layers, base.Meta.Last, func(w io.Writer) error {
			return delta.WriteDeltaTo(ctx, base.Meta.Last, w)
		})
		var damaged *objectstore.DamagedError
		if !errors.Is(err, ErrNoDelta) && !errors.As(err, &damaged) {
			return ref, manifest, stats, err
		}
	}
	return b.upload(ctx, blobs, nil, raft.LogID{}, func(w io.Writer) error { return b.view.WriteTo(ctx, w) })
}

// worthDelta reports whether another difference should follow: not when they are many, or have become large beside the whole.
func worthDelta(base *objectstore.Manifest) bool {
	var deltas uint64
	for _, l := range base.Layers[1:] {
		deltas += l.Raw
	}
	return len(base.Layers) < maxLayers && deltas <= base.Layers[0].Raw/2
}

func (b *builder) upload(ctx context.Context, blobs objectstore.Blobs, keep []objectstore.Layer, since raft.LogID, write func(io.Writer) error) (ref storage.SnapshotRef, m *objectstore.Manifest, stats objectstore.Stats, err error) {
	ctx, span := traceWork(ctx, b.telemetry, "raft.snapshot.upload", onBuilder)
	defer func() { endSnapshot(span, b.meta.Last.Index, err) }()
	options := objectstore.UploadOptions{Retry: objectstore.Retry{Patience: storePatience}, MaxEntryBytes: b.maxEntryBytes}
	if b.whole {
		options.Resend = func(objectstore.Digest) bool { return true }
	}
	u, err := objectstore.Begin(ctx, &pacedBlobs{Blobs: blobs, pace: newPace(b.rate), moving: b.metrics.moving(snapshotStore)}, b.cluster, options)
	if err != nil {
		return ref, nil, stats, err
	}
	defer u.Abort()
	u.Keep(keep...)
	layer := u.Layer(since)
	if err := write(&pacedWriter{ctx: ctx, w: layer, pace: newPace(b.rate), moving: b.metrics.moving(snapshotRead)}); err != nil {
		return ref, nil, stats, err
	}
	if err := layer.Close(); err != nil {
		return ref, nil, stats, err
	}
	ref, stats, err = u.Commit(ctx, b.meta)
	if err != nil {
		return ref, nil, stats, err
	}
	m, err = options.Retry.Open(ctx, blobs, ref)
	return ref, m, stats, err
}

// newestSnapshot returns the newest snapshot of the cluster in a store, or objectstore.ErrNotFound. What another cluster has left there, which
// was given up, is passed over.
func newestSnapshot(ctx context.Context, blobs objectstore.Blobs, cluster raft.ClusterID) (storage.SnapshotRef, *objectstore.Manifest, error) {
	refs, damaged, err := objectstore.List(ctx, blobs)
	if err != nil {
		return storage.SnapshotRef{}, nil, err
	}
	for _, ref := range refs {
		m, err := objectstore.Retry{Patience: storePatience}.Open(ctx, blobs, ref)
		if err != nil {
			return storage.SnapshotRef{}, nil, err
		}
		if m.Cluster == cluster {
			return ref, m, nil
		}
	}
	err = fmt.Errorf("the newest snapshot: %w", objectstore.ErrNotFound)
	for _, d := range damaged {
		err = errors.Join(err, d)
	}
	return storage.SnapshotRef{}, nil, err
}

// sweepSnapshots removes all but the newest snapshots and those that go up to one of keep. What is another cluster's stays, but in a directory of
// the node's own, where nothing needs grace.
func sweepSnapshots(ctx context.Context, blobs objectstore.Blobs, cluster raft.ClusterID, newest int, keep []raft.LogID, grace time.Duration) error {
	wanted := func(ref storage.SnapshotRef, m *objectstore.Manifest) bool {
		if m.Cluster != cluster {
			return grace > 0
		}
		newest--
		return newest >= 0 || slices.Contains(keep, ref.Last)
	}
	_, err := objectstore.Sweep(ctx, blobs, wanted, nil, grace)
	return err
}

// builtSnapshot takes what a builder reports, and answers those who asked.
func (c *raftCore) builtSnapshot(r *built) {
	s := &c.snapshots
	s.building, s.status.Building = false, false
	stopped := s.buildStopped
	s.buildStopped = false
	if r.err != nil { // what asked for this build asks for the next one
		s.wanted, s.whole = s.wanted || r.wanted, s.whole || r.whole
	}
	if r.err != nil && stopped { // there will be another state, or it is asked for again; the node leads no more
		c.answerBuild(r.waiting, storage.SnapshotRef{}, &NotLeaderError{Leader: c.engine.Leader().ID})
		return
	}
	if !r.found {
		c.metrics.snapshotEnded(snapshotBuild, r.err)
	}
	if r.local.Index > s.localLast.Index { // and not behind one that was installed meanwhile
		s.localLast = r.local
	}
	if r.err != nil {
		s.failures++
		s.problem = r.err.Error()
		s.status.Problem = "cannot build a snapshot, so the log is kept: " + s.problem
		s.retryAt = time.Now().Add(min(firstRetry<<min(s.failures-1, 10), mostRetry))
		c.logger.WarnContext(r.traced, "cannot build a snapshot; the log is kept meanwhile", "error", r.err, "attempt", s.failures, "next", s.retryAt)
		c.answerBuild(r.waiting, storage.SnapshotRef{}, r.err)
		return
	}
	s.failures, s.problem, s.status.Problem = 0, "", ""
	s.builtIndex, s.builtBytes = r.index, r.bytes
	if r.manifest != nil {
		c.adoptSnapshot(r.ref, r.manifest)
		s.status.Read, s.status.Sent, s.status.Took, s.status.Held = r.stats.Raw, r.stats.Sent, r.took, r.held
		c.logger.InfoContext(r.traced, "snapshot complete", "index", r.ref.Last.Index, "bytes", r.ref.Bytes, "read", r.stats.Raw, "sent", r.stats.Sent, "took", r.took, "held", r.held)
	}
	c.answerBuild(r.waiting, r.ref, nil)
	s.purgeAt = time.Time{}
}

// answerBuild tells those who asked for a snapshot what came of it. None that others can have is built by a node that does not lead.
func (c *raftCore) answerBuild(waiting []func(storage.SnapshotRef, error), ref storage.SnapshotRef, err error) {
	if err == nil && ref.Name == "" {
		err = &NotLeaderError{Leader: c.engine.Leader().ID}
	}
	for _, answer := range waiting {
		c.tell(func() { answer(ref, err) })
	}
}
