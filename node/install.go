package node

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/trace"

	"quorate/node/raft"
	"quorate/node/sessions"
	"quorate/storage/objectstore"
)

// install puts a snapshot that was fetched in the place of state and log. The state goes first, atomically; a crash before the log is
// reset leaves a state that is ahead of its log, and restore discards such a log.
func (c *raftCore) install(f *fetched) error {
	meta := f.meta
	setting, err := c.cfg.settingIn(meta.System)
	if err != nil {
		return fmt.Errorf("install the snapshot of %v: %w", meta.Last, err)
	}
	table, err := sessions.Load(meta.System)
	if err != nil {
		return fmt.Errorf("install the snapshot of %v: %w", meta.Last, err)
	}
	c.endBuilder()
	if err := c.switchState(f); err != nil {
		return fmt.Errorf("install the snapshot of %v: %w", meta.Last, err)
	}
	if term, err := c.log.Term(meta.Last.Index); err == nil && term == meta.Last.Term {
		err = c.log.Purge(meta.Last)
		if err != nil {
			return fmt.Errorf("install the snapshot of %v: %w", meta.Last, err)
		}
	} else if err := c.log.Reset(meta.Last); err != nil {
		return fmt.Errorf("install the snapshot of %v: %w", meta.Last, err)
	}
	c.applied, c.sessions = meta.Last, table
	c.appliedTime = max(c.appliedTime, logTime(meta.System))
	c.lastTime = max(c.lastTime, c.appliedTime)
	c.appliedMembership = raft.MembershipAt{ID: meta.MembershipID, Membership: meta.Membership}
	c.appliedSetting = setting
	c.proposals.passed(meta.Last.Index)
	c.engine.Installed(time.Now(), meta.Last, c.appliedMembership, setting)
	c.reads.applied(c.applied.Index)
	s := &c.snapshots
	s.localLast = meta.Last
	s.durable = meta.Last.Index
	s.status.InstalledBytes = f.ref.Bytes
	s.status.InstalledIndex, s.status.InstallTook, s.status.Problem = meta.Last.Index, time.Since(f.began), ""
	c.logger.InfoContext(trace.ContextWithSpanContext(context.Background(), f.cause), "snapshot installed", "index", meta.Last.Index, "bytes", f.ref.Bytes, "took", s.status.InstallTook)
	return nil
}

// switchState is the part of an installation that the state machine does.
func (c *raftCore) switchState(f *fetched) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("state machine: panic: %v\n%s", p, debug.Stack())
		}
	}()
	if staged := f.staged; staged != nil {
		f.staged = nil
		if err := staged.Install(); err != nil {
			return fmt.Errorf("state machine: %w", err)
		}
		return nil
	}
	return restoreFrom(context.Background(), c.sm, c.snapshots.local, f.manifest, f.meta)
}

// restoreFrom gives a snapshot in a directory to the state machine. meta is the manifest's, with all records.
func restoreFrom(ctx context.Context, sm StateMachine, from objectstore.Blobs, m *objectstore.Manifest, meta SnapshotMeta) error {
	r := objectstore.Reader(ctx, from, m, objectstore.Retry{})
	if err := errors.Join(sm.Restore(ctx, meta, r), r.Close()); err != nil {
		return fmt.Errorf("state machine: restore: %w", err)
	}
	return nil
}
