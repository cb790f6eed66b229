package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"

	"quorate/node/raft"
)

// ReadLease is ReadIndex without its round to the quorum, where the cluster's setting has leases (Setting) and this node leads: a quorum of the
// voters has promised, a moment ago, to help nobody else to lead for a time, and a clock that was read after ReadLease was called says that the
// time is not over. It then returns at once, and true. Otherwise, on other nodes, without a lease and in a cluster with instant
// failover, it is ReadIndex, and returns false. Either way a read of the state machine after it is linearizable.
//
// That clocks run at nearly one pace is all that a lease believes: one that is slower than another by 10 % or more breaks it, as does a virtual
// machine that is stopped and goes on without being told that time has passed. A process that was paused reads its clock after it.
func (n *Node) ReadLease(ctx context.Context) (index uint64, leased bool, err error) {
	if index, ok := n.TryReadLease(); ok {
		return index, true, nil
	}
	p := newPending(raft.Entry{})
	index, err = n.readIndex(ctx, request{pending: p, read: true, leased: true})
	if err != nil {
		return 0, false, fmt.Errorf("read under the lease: %w", err)
	}
	return index, p.leased, nil
}

// TryReadLease is ReadLease if that has nothing to wait for: it returns false if this node has no lease, or has not applied all that is
// committed. Any goroutine may call it, and none waits for RaftCore.
func (n *Node) TryReadLease() (index uint64, ok bool) {
	select {
	case <-n.done:
		return 0, false
	default:
	}
	l := n.leased.Load()
	applied := n.watch.state.Load().applied
	if !l.Covers(time.Now(), applied) { // the clock last
		return 0, false
	}
	n.metrics.readLeased(1)
	return applied, true
}

// readIndex has RaftCore decide a read, and waits for it.
func (n *Node) readIndex(ctx context.Context, r request) (uint64, error) {
	r.begin(n, trace.SpanContextFromContext(ctx))
	if err := n.hand(ctx, r); err != nil {
		r.pending.refuse(err)
		return 0, err
	}
	result, err := n.await(ctx, r.pending)
	switch {
	case err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return 0, ctx.Err() // a read that was not answered has no outcome to know
	case err != nil:
		return 0, err
	}
	return result.ID.Index, nil
}

// publishLease gives the lease, as it is after this pass, to those who read by it. It comes before all else that a pass does.
func (c *raftCore) publishLease() {
	l := c.engine.Leased()
	if l == nil {
		if c.leased.Load() != nil {
			c.leased.Store(nil)
		}
		return
	}
	l.Until = c.clock.seen.Add(l.Until.Sub(c.clock.seen)) // by the wall clock of this pass
	c.leased.Store(l)
}

// readLeased decides reads by the lease: it stands at the time at which this pass began, and they were asked for before that. Without one it
// returns them.
func (c *raftCore) readLeased(reads []request) []request {
	if _, ok := c.engine.Lease(); !ok || len(reads) == 0 {
		return reads
	}
	for _, r := range reads {
		r.pending.leased = true
	}
	c.metrics.readLeased(len(reads))
	c.reads.confirm(c.engine.Commit(), reads, c.applied.Index)
	return nil
}

// clock tells RaftCore that the machine slept. The clock that times are compared by stands still then, and the wall clock does not.
type clock struct {
	began time.Time
	// seen is the time of this pass; ahead is how far the wall clock was ahead of the other at that time.
	seen  time.Time
	ahead time.Duration
}

// clockSlip is what the wall clock may gain from one pass to the next by being kept right, generously. A lease leaves room for more.
const clockSlip = 2 * time.Millisecond

// slept notes the time of a pass, and reports whether the machine slept since the last one, or the wall clock was set forward, which looks the
// same.
func (k *clock) slept(now time.Time) bool {
	k.seen = now
	return k.gained(now.Round(0).Sub(k.began.Round(0)), now.Sub(k.began))
}

func (k *clock) gained(wall, monotonic time.Duration) bool {
	before := k.ahead
	k.ahead = wall - monotonic
	return k.ahead-before > clockSlip
}
