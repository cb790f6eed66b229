package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"quorate/node/raft"
)

// appendOwn has RaftCore append an entry of the engine's own, by f, and returns its log id when it is committed and applied. What it does is traced
// below a span of that name.
func (n *Node) appendOwn(ctx context.Context, name string, f func(c *raftCore) (raft.LogID, error)) (raft.LogID, error) {
	p := newPending(raft.Entry{})
	if parent := trace.SpanContextFromContext(ctx); n.cfg.Telemetry.Records(parent) {
		p.trace = beginPending(n.cfg.Telemetry, parent, name)
	}
	ran := false
	id, err := inCore(ctx, n, func(c *raftCore) (raft.LogID, error) {
		ran = true
		c.tracing.took(p, time.Now())
		id, err := f(c)
		switch {
		case err != nil:
			p.trace.end(Result{}, err)
		case id.Index <= c.engine.Commit():
			p.resolve(Result{ID: id}, nil) // it is in force already, or nobody else votes
		default:
			p.id = id
			c.proposals.add(p)
			c.tracing.proposed(p.trace, id)
		}
		return id, err
	})
	if err != nil {
		if !errors.Is(err, ErrUnknownOutcome) && !ran { // RaftCore has not seen it, and will not
			p.trace.end(Result{}, err)
		}
		return id, err
	}
	_, err = n.await(ctx, p)
	return id, err
}

// inCore has RaftCore run f in a pass, and returns what it returned, when the pass is over. It blocks for that, or until the context ends or the
// node stops: then f will not be run any more, or the error wraps ErrUnknownOutcome.
func inCore[T any](ctx context.Context, n *Node, f func(c *raftCore) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var zero T
	if err := n.admit(nil); err != nil {
		return zero, err
	}
	done := make(chan result, 1)
	var taken atomic.Bool // by RaftCore, which runs f then, or by the caller, who has given up
	run := func(c *raftCore) {
		if taken.Swap(true) {
			return
		}
		value, err := f(c)
		c.tell(func() { done <- result{value, err} })
	}
	select {
	case n.in.control <- timed[controlCall]{controlCall{run: run}, n.metrics.now()}:
	case <-ctx.Done():
		return zero, ctx.Err()
	case <-n.done:
		return zero, ErrStopped
	}
	var ended error
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		ended = ctx.Err()
	case <-n.done:
		ended = ErrStopped
	}
	if taken.Swap(true) {
		select {
		case r := <-done: // just then
			return r.value, r.err
		default:
			ended = fmt.Errorf("%w: %w", ErrUnknownOutcome, ended)
		}
	}
	return zero, ended
}

// typed turns the engine's errors into those of this package.
func (c *raftCore) typed(err error) error {
	if errors.Is(err, raft.ErrNotLeading) {
		return &NotLeaderError{Leader: c.engine.Leader().ID}
	}
	return err
}

// Elect makes the node stand for election now, as if it had lost its leader. It changes when an election starts, not who may win it: voters
// in touch with a leader refuse. A leader, a learner and a removed node do nothing. It reports whether the node stands.
func (n *Node) Elect(ctx context.Context) (bool, error) {
	return inCore(ctx, n, func(c *raftCore) (bool, error) { return c.engine.Elect(time.Now()), nil })
}

// Heartbeat makes a leader send a heartbeat to every target now.
func (n *Node) Heartbeat(ctx context.Context) error {
	_, err := inCore(ctx, n, func(c *raftCore) (struct{}, error) {
		if !c.engine.Heartbeat(time.Now()) {
			return struct{}{}, c.typed(raft.ErrNotLeading)
		}
		return struct{}{}, nil
	})
	return err
}

// Switches turn parts of a running node off and on. The zero value has all on.
type Switches struct {
	// NoElections: the node does not stand for election. It still votes.
	NoElections bool
	// NoHeartbeats: as leader, the node sends no heartbeats.
	NoHeartbeats bool
	// NoSnapshots: no snapshot is built by policy.
	NoSnapshots bool
	// NoTicks: no timer of Raft runs. The node answers and does what it is told; by itself it neither stands for election nor sends
	// heartbeats, and as leader it does not notice that its quorum is gone. For tests.
	NoTicks bool
}

// Switch sets the switches.
func (n *Node) Switch(ctx context.Context, s Switches) error {
	_, err := inCore(ctx, n, func(c *raftCore) (struct{}, error) {
		c.engine.SetElections(!s.NoElections)
		c.engine.SetHeartbeats(!s.NoHeartbeats)
		c.switches = s
		return struct{}{}, nil
	})
	return err
}

// Reload changes settings that are safe to change while the node runs. Zero fields stay as they are. Timers that run keep their
// deadlines, workers that serve a target keep what may be in flight until the next leadership. Config tells what the node was started with.
func (n *Node) Reload(ctx context.Context, r Reloadable) error {
	_, err := inCore(ctx, n, func(c *raftCore) (struct{}, error) {
		cfg := c.cfg
		override(&cfg.HeartbeatInterval, r.HeartbeatInterval)
		override(&cfg.ElectionTimeout, r.ElectionTimeout)
		override(&cfg.MaxInFlight, r.MaxInFlight)
		override(&cfg.MaxInFlightBytes, r.MaxInFlightBytes)
		override(&cfg.MaxUncommittedBytes, r.MaxUncommittedBytes)
		override(&cfg.SnapshotEntries, r.SnapshotEntries)
		override(&cfg.SnapshotBytes, r.SnapshotBytes)
		override(&cfg.KeepEntries, r.KeepEntries)
		if err := cfg.setDefaults(); err != nil {
			return struct{}{}, err
		}
		c.cfg = cfg
		c.engine.Reload(raft.Settings{HeartbeatInterval: cfg.HeartbeatInterval, ElectionTimeout: cfg.ElectionTimeout})
		return struct{}{}, nil
	})
	return err
}

// Reloadable are the settings that Reload changes; see Config.
type Reloadable struct {
	HeartbeatInterval, ElectionTimeout          time.Duration
	MaxInFlight, MaxInFlightBytes               int
	MaxUncommittedBytes                         int
	SnapshotEntries, SnapshotBytes, KeepEntries uint64
}

func override[T comparable](field *T, value T) {
	var zero T
	if value != zero {
		*field = value
	}
}

// Barrier returns when everything that was committed before it is applied on the leader: it proposes an entry without content and
// waits for it. It blocks until then. Errors are those of Propose.
func (n *Node) Barrier(ctx context.Context) (Result, error) {
	result, err := n.propose(ctx, raft.Entry{Kind: raft.EntryBlank})
	if err != nil {
		return Result{}, fmt.Errorf("barrier: %w", err)
	}
	return result, nil
}

// VerifyLeader returns nil when this node leads and a quorum has confirmed that, after the call began. It blocks for one round trip to a
// quorum. Errors: *NotLeaderError, ErrStopped, the context's.
func (n *Node) VerifyLeader(ctx context.Context) error {
	p := newPending(raft.Entry{})
	if err := n.hand(ctx, request{pending: p, read: true, confirm: true, local: true}); err != nil {
		return fmt.Errorf("verify leader: %w", err)
	}
	if _, err := n.await(ctx, p); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("verify leader: %w", err)
	}
	return nil
}

// TransferLeadership hands leadership to a voter, or to the most caught up one if to is empty, and returns when another node
// leads. While it is under way, proposals wait. On a node that does not lead it is handed on to the leader.
// Errors: *raft.TransferError, if that voter cannot take over, is gone, or did not take over within an election timeout; *NotLeaderError, the context's.
func (n *Node) TransferLeadership(ctx context.Context, to raft.NodeID) error {
	if err := n.onLeader(ctx, "transfer", transferArgs{To: to}, nil, func() error { return n.transfer(ctx, to) }); err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	return nil
}

func (n *Node) transfer(ctx context.Context, to raft.NodeID) error {
	term, err := inCore(ctx, n, func(c *raftCore) (uint64, error) {
		err := c.engine.Transfer(time.Now(), to)
		return c.engine.Vote().Term, c.typed(err)
	})
	if err != nil || to == n.cfg.ID {
		return err
	}
	status, err := n.Wait(ctx, func(s Status) bool {
		return s.Term > term && s.Leader != "" || s.Role != RoleLeader && s.Leader != "" && s.Leader != n.cfg.ID || s.Role == RoleLeader && !s.Transferring
	})
	if err != nil {
		return err
	}
	if status.Leader == n.cfg.ID {
		return &raft.TransferError{To: to, Reason: "it is gone, or did not take over within an election timeout"}
	}
	return nil
}

// HandOver hands leadership to another voter if this node leads and another can take it: what a leader does before it stops, so that
// nobody waits for a new one. It blocks for an election timeout at most, and not at all once no other voter is there; its outcome is only
// a matter of speed.
func (n *Node) HandOver(ctx context.Context) {
	s := n.watch.state.Load()
	if s.role != RoleLeader || len(s.membership.Voters()) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.electionTimeout)
	defer cancel()
	err := n.transfer(ctx, "")
	for failed := (*raft.TransferError)(nil); errors.As(err, &failed) && !failed.Nobody && ctx.Err() == nil; {
		err = n.transfer(ctx, "") // the one that was tried is gone; another may be there
	}
	if err != nil {
		n.logger.Info("stopping without having handed leadership over", "reason", err)
	}
}
