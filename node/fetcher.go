package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/objectstore"
	"quorate/telemetry"
)

// StagedStateMachine is a StateMachine that can prepare a restore beside Apply, so that RaftCore has only to put the new state in the
// place of the old one: a node that fetches a large snapshot answers its peers meanwhile.
type StagedStateMachine interface {
	StateMachine
	// Stage reads a snapshot and prepares its state, durably. It is called by another goroutine than RaftCore, one at a time.
	Stage(ctx context.Context, meta SnapshotMeta, r io.Reader) (Staged, error)
}

// Staged is a state that was prepared. Exactly one of its methods is called, once.
type Staged interface {
	// Install puts it in the place of the present state, atomically, also if the machine crashes. RaftCore calls it.
	Install() error
	// Discard removes it.
	Discard() error
}

// fetched is what a fetcher reports.
type fetched struct {
	ref      storage.SnapshotRef
	manifest *objectstore.Manifest
	// meta is the manifest's, with all records.
	meta   storage.SnapshotMeta
	staged Staged
	began  time.Time
	// cause is the span of the offer, if that was traced.
	cause trace.SpanContext
	err   error
	// settled is closed when RaftCore is done with it: what was staged is in place, or gone.
	settled chan struct{}
}

// fetcher brings one snapshot from the object store into the node's directory, verifies it, and prepares its state. It resumes what an
// earlier one, also of an earlier process, has left there.
type fetcher struct {
	from     objectstore.Blobs
	to       *objectstore.Directory
	ref      storage.SnapshotRef
	cluster  raft.ClusterID
	cfg      Config
	sm       StateMachine
	progress *fetchProgress
	metrics  *metrics
	// inMemory: what was fetched is kept, because it stands for the state after a restart.
	inMemory bool
}

// fetchProgress is read by whoever asks for the status.
type fetchProgress struct{ done, total atomic.Int64 }

// fetch spawns a fetcher, in place of one that is at work.
func (c *raftCore) fetch(ctx context.Context, ref storage.SnapshotRef) {
	s := &c.snapshots
	if s.fetching != nil {
		s.fetching()
		s.fetching = nil
	}
	if s.shared == nil || s.local == nil {
		c.logger.Warn("a snapshot was offered, but there is nowhere to fetch it from or to", "index", ref.Last.Index)
		c.engine.FetchFailed(time.Now(), ref, false)
		return
	}
	ctx, s.fetching = context.WithCancel(trace.ContextWithSpanContext(ctx, c.tracing.offer))
	f := &fetcher{from: c.partsFrom(), to: s.local, ref: ref, cluster: c.genesis.ClusterID(), cfg: c.cfg, sm: c.sm, progress: c.fetchProgress, metrics: c.metrics, inMemory: c.inMemory()}
	s.status.Fetching = ref.Last.Index
	var building <-chan struct{}
	if s.building && c.inMemory() { // see dueSnapshot
		s.stopBuild()
		building = s.builderEnded
	}
	c.logger.InfoContext(ctx, "fetching a snapshot", "index", ref.Last.Index, "bytes", ref.Bytes)
	c.afterFetcher(func() {
		if building != nil {
			<-building
		}
		result := &fetched{ref: ref, began: time.Now(), cause: trace.SpanContextFromContext(ctx), settled: make(chan struct{})}
		ctx, span := traceWork(ctx, f.cfg.Telemetry, "raft.snapshot.fetch", onFetcher)
		f.run(ctx, result)
		endSnapshot(span, ref.Last.Index, result.err)
		select {
		case c.in.snapshot <- timed[snapshotEvent]{snapshotEvent{fetched: result}, c.metrics.now()}:
		case <-c.ended:
			result.drop(c.logger)
			return
		}
		// The next fetcher stages its state where this one is: it must not begin before this one is gone, or it would be removed in its place.
		select {
		case <-result.settled:
		case <-c.ended:
		}
	})
}

// fetcherWorks reports whether a fetcher, or what tidies up after one, works in the node's directory for snapshots.
func (c *raftCore) fetcherWorks() bool {
	if c.fetcherEnded == nil {
		return false
	}
	select {
	case <-c.fetcherEnded:
		return false
	default:
		return true
	}
}

func (f *fetched) discard() error {
	if f.staged == nil {
		return nil
	}
	staged := f.staged
	f.staged = nil
	return staged.Discard()
}

func (f *fetcher) run(ctx context.Context, result *fetched) {
	defer func() {
		if p := recover(); p != nil {
			result.err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	result.err = f.fetch(ctx, result)
}

func (f *fetcher) fetch(ctx context.Context, result *fetched) error {
	from := f.from
	if moving := f.metrics.moving(snapshotFetch); moving != nil {
		from = &movingBlobs{Blobs: from, moving: moving}
	}
	err := objectstore.Fetch(ctx, from, f.to, f.ref, objectstore.FetchOptions{
		Retry: objectstore.Retry{Patience: storePatience},
		Check: func(m *objectstore.Manifest) error {
			if err := f.check(m); err != nil {
				return err
			}
			return f.tidy(ctx, m)
		},
		CheckWhole: func(m *objectstore.Manifest) (err error) { // what check cannot: the records may be in parts
			if result.meta, err = objectstore.ReadMeta(ctx, f.to, m, objectstore.Retry{}); err != nil {
				return err
			}
			_, err = f.cfg.settingIn(result.meta.System)
			return err
		},
		Progress: func(done, total int64) { f.progress.done.Store(done); f.progress.total.Store(total) },
	})
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	if result.manifest, err = objectstore.Open(ctx, f.to, f.ref); err != nil {
		return fmt.Errorf("open what was fetched: %w", err)
	}
	staged, ok := f.sm.(StagedStateMachine)
	if !ok {
		return nil
	}
	r := objectstore.Reader(ctx, f.to, result.manifest, objectstore.Retry{})
	result.staged, err = staged.Stage(ctx, result.meta, r)
	if err = errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("prepare the state: %w", err)
	}
	return nil
}

// check refuses a snapshot before anything of it is in the node's directory, where, in memory, it would be the state after a restart; and before
// the state machine meets what it does not know.
func (f *fetcher) check(m *objectstore.Manifest) error {
	if m.Cluster != f.cluster {
		return fmt.Errorf("it is a snapshot of cluster id %s, not of this cluster", m.Cluster)
	}
	_, err := f.cfg.settingIn(m.Meta.System)
	return err
}

// tidy removes what earlier fetches left and this one has no use for: it would fill the disk if one after the other is broken off. Only what this one
// is to bring, and in memory the snapshot that stands for the present state, are of use.
func (f *fetcher) tidy(ctx context.Context, m *objectstore.Manifest) error {
	newest := 0
	if f.inMemory {
		newest = 1
	}
	parts := map[objectstore.Digest]bool{}
	for _, p := range m.Unique() {
		parts[p.Digest] = true
	}
	wanted := func(ref storage.SnapshotRef, of *objectstore.Manifest) bool {
		if of.Cluster != f.cluster {
			return false
		}
		newest--
		return newest >= 0 || ref.Last == f.ref.Last
	}
	if _, err := objectstore.Sweep(ctx, f.to, wanted, func(d objectstore.Digest) bool { return parts[d] }, 0); err != nil {
		return fmt.Errorf("remove what earlier fetches left: %w", err)
	}
	return nil
}

// fetchedSnapshot installs what was fetched, if it is still wanted.
func (c *raftCore) fetchedSnapshot(f *fetched) error {
	defer c.settle(f)
	now := time.Now()
	current, ok := c.engine.Installing()
	if !ok || current != f.ref { // another one was offered meanwhile
		return nil
	}
	c.snapshots.status.Fetching = 0
	if f.err == nil && f.manifest.Meta.Last != f.ref.Last {
		f.err = fmt.Errorf("the manifest is of entry %v, the offer was of %v", f.manifest.Meta.Last, f.ref.Last)
	}
	if errors.Is(f.err, storage.ErrNewer) {
		return fmt.Errorf("the snapshot of %v: %w", f.ref.Last, f.err)
	}
	if f.err != nil {
		c.metrics.snapshotEnded(snapshotInstall, f.err)
		var damaged *objectstore.DamagedError
		c.snapshots.status.Problem = "cannot fetch a snapshot: " + f.err.Error()
		c.logger.WarnContext(trace.ContextWithSpanContext(context.Background(), f.cause), "cannot fetch a snapshot", "index", f.ref.Last.Index, "error", f.err)
		c.engine.FetchFailed(now, f.ref, errors.As(f.err, &damaged))
		return nil
	}
	if !c.engine.MayInstall(f.ref.Last) {
		c.engine.FetchFailed(now, f.ref, false)
		return nil
	}
	var span telemetry.Span
	if t := c.tracing.telemetry; t.Records(f.cause) {
		span = t.Begin(f.cause, "raft.snapshot.install", onRaftCore, now)
	}
	err := c.install(f)
	endSnapshot(span, f.ref.Last.Index, err)
	c.metrics.snapshotEnded(snapshotInstall, err)
	if err != nil || c.inMemory() {
		return err
	}
	c.afterFetcher(func() {
		if err := sweepSnapshots(context.Background(), c.snapshots.local, c.genesis.ClusterID(), 0, nil, 0); err != nil {
			c.logger.Warn("cannot remove a snapshot that is installed", "error", err)
		}
	})
	return nil
}

// settle removes what was staged and not installed, and lets the next fetcher begin. A large state takes its time to be removed, and RaftCore does not
// wait for that.
func (c *raftCore) settle(f *fetched) {
	if f.staged == nil {
		close(f.settled)
		return
	}
	c.group.Go(func() {
		defer close(f.settled)
		f.drop(c.logger)
	})
}

// afterFetcher runs f in a goroutine, when the last one that worked in the node's directory for snapshots has ended.
func (c *raftCore) afterFetcher(f func()) {
	previous := c.fetcherEnded
	ended := make(chan struct{})
	c.fetcherEnded = ended
	c.group.Go(func() {
		defer close(ended)
		if previous != nil {
			<-previous
		}
		f()
	})
}

// drop discards a state that is not needed.
func (f *fetched) drop(logger *slog.Logger) {
	if err := f.discard(); err != nil {
		logger.Warn("cannot remove a state that is not needed", "error", err)
	}
}
