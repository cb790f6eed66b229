package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quorate/node/raft"
	"quorate/storage"
)

// purgeEvery is how often is looked whether the log can be purged.
const purgeEvery = time.Second

// synced is what becomes of making the state machine durable.
type synced struct{ err error }

// purge shortens the log (rule 8 of the design): never past what this node needs to recover alone, nor past the newest complete snapshot,
// nor what a target needs that is installing one; KeepEntries before that stay for those who were away for a moment.
func (c *raftCore) purge(ctx context.Context, now time.Time) {
	s := &c.snapshots
	if len(s.wantDurable) > 0 && !s.syncing {
		s.makingDurable, s.wantDurable = s.wantDurable, nil
		c.syncState(ctx, 0)
	}
	if now.Before(s.purgeAt) || s.syncing { // what is durable changes when that ends, and to look it up takes its time
		return
	}
	s.purgeAt = now.Add(purgeEvery)
	floor := c.engine.PurgeFloor()
	purged := c.log.Purged().Index
	if floor < purged+c.cfg.KeepEntries+c.purgeStep() {
		return
	}
	own, err := c.recoverable(floor)
	if err != nil {
		c.logger.Error("cannot tell what of the state is durable, so the log is kept", "error", err)
		return
	}
	if own < floor {
		c.syncState(ctx, floor)
	}
	if to := min(floor, own); to >= purged+c.cfg.KeepEntries+c.purgeStep() {
		if err := c.purgeTo(to - c.cfg.KeepEntries); err != nil {
			c.fail(fmt.Errorf("purge the log: %w", err))
		}
	}
}

// purgeStep keeps purges from being many and small.
func (c *raftCore) purgeStep() uint64 { return c.cfg.KeepEntries/10 + 1 }

// recoverable returns the index up to which this node has what it needs without its log.
func (c *raftCore) recoverable(floor uint64) (uint64, error) {
	s := &c.snapshots
	durable, ok := c.sm.(DurableStateMachine)
	if !ok {
		return s.localLast.Index, nil
	}
	if s.durable >= floor {
		return s.durable, nil
	}
	applied, err := durable.Applied()
	s.durable = max(s.durable, applied.Last.Index)
	return s.durable, err
}

// syncState makes the state machine durable, by a goroutine of its own: purging waits for it, RaftCore does not.
func (c *raftCore) syncState(ctx context.Context, floor uint64) {
	durable, ok := c.sm.(DurableStateMachine)
	if !ok || c.snapshots.syncing || c.applied.Index < floor {
		return
	}
	c.snapshots.syncing = true
	c.group.Go(func() {
		err := durable.Sync(ctx)
		if ctx.Err() != nil {
			err = nil
		}
		select {
		case c.in.snapshot <- timed[snapshotEvent]{snapshotEvent{synced: &synced{err: err}}, c.metrics.now()}:
		case <-c.ended:
		}
	})
}

func (c *raftCore) purgeTo(index uint64) error {
	if index <= c.log.Purged().Index {
		return nil
	}
	term, err := c.log.Term(index)
	if err != nil {
		if errors.Is(err, storage.ErrPurged) {
			return nil
		}
		return err
	}
	id := raft.LogID{Term: term, Index: index}
	if err := c.log.Purge(id); err != nil {
		return err
	}
	c.engine.Purged(id)
	return nil
}

// Purge shortens this node's log up to an index, or as far as is safe if that is less: never past the newest complete snapshot, nor past
// what this node needs to recover alone, which includes the newest entry that is applied: the log time is in it. What is applied and not yet
// durable is made durable for it. It returns the log id of the newest entry that is purged now.
func (n *Node) Purge(ctx context.Context, upTo uint64) (raft.LogID, error) {
	id, err := n.purgeHere(ctx, upTo)
	if err != nil {
		return id, fmt.Errorf("purge the log up to %d: %w", upTo, err)
	}
	return id, nil
}

func (n *Node) purgeHere(ctx context.Context, upTo uint64) (raft.LogID, error) {
	type outcome struct {
		purged raft.LogID
		// waits: nothing was done, the state is to be made durable first.
		waits bool
	}
	durable := make(chan struct{})
	try := func(again bool) (outcome, error) {
		return inCore(ctx, n, func(c *raftCore) (outcome, error) {
			to := min(upTo, c.engine.PurgeFloor(), max(c.applied.Index, 1)-1)
			own, err := c.recoverable(to)
			if err != nil {
				return outcome{}, err
			}
			if own < to && !c.inMemory() && !again {
				c.snapshots.wantDurable = append(c.snapshots.wantDurable, durable)
				return outcome{waits: true}, nil
			}
			err = c.purgeTo(min(to, own))
			return outcome{purged: c.log.Purged()}, err
		})
	}
	first, err := try(false)
	if err != nil || !first.waits {
		return first.purged, err
	}
	select {
	case <-durable:
	case <-ctx.Done():
		return raft.LogID{}, ctx.Err()
	case <-n.done:
		return raft.LogID{}, ErrStopped
	}
	second, err := try(true)
	return second.purged, err
}
