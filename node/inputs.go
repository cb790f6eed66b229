package node

import (
	"log/slog"
	"slices"
	"time"

	"quorate/node/raft"
	"quorate/transport"
)

// The channels into RaftCore. Each is bounded; whoever sends waits, or is refused, or leaves the newest value only.
type inputs struct {
	// api: user → RaftCore. Each request carries its own reply channel.
	api chan request
	// control: user → RaftCore, what is rare: each is run by RaftCore, between two passes.
	control chan timed[controlCall]
	// rpc: transport → RaftCore. A full channel refuses the peer, who tries again.
	rpc chan transport.Incoming
	// progress: workers → RaftCore.
	progress chan timed[raft.Progress]
	// answers: transport → RaftCore, of RaftCore's own votes and probes. Lost if full, as on the network.
	answers chan answer
	// snapshot: builder and fetcher → RaftCore, one report each.
	snapshot chan timed[snapshotEvent]
	// durable: sync waiter → RaftCore, the newest write on disk, and since when it is: always, since the engine judges the disk by it.
	durable chan timed[uint64]
}

// timed is a value on its way through a channel, with when it was sent if anybody measures (metrics.now), else the zero time.
type timed[T any] struct {
	value T
	sent  time.Time
}

func newInputs() inputs {
	return inputs{
		api:      make(chan request, 4096),
		control:  make(chan timed[controlCall], 64),
		rpc:      make(chan transport.Incoming, 256),
		progress: make(chan timed[raft.Progress], 64),
		answers:  make(chan answer, 64),
		snapshot: make(chan timed[snapshotEvent], 4),
		durable:  make(chan timed[uint64], 1),
	}
}

// controlCall is run by RaftCore, or dropped when it has ended.
type controlCall struct {
	run func(*raftCore)
	// drop answers those who wait for it and do not see by themselves that the node has ended; nil if nobody does.
	drop func()
}

// request is one call of a user.
type request struct {
	// pending gets the outcome of a proposal, or of a read if read is set.
	pending *Pending
	read    bool
	// leased: a read that needs no round if this node leads and has a lease.
	leased bool
	// confirm: a read that is answered when the leader is confirmed, before its index is applied here.
	confirm bool
	// local: not to be handed on to the leader, because the caller wants the leader here, or because it came from another node.
	local bool
}

// answer is what became of a vote request or a probe.
type answer struct {
	vote *raft.VoteResponse
	// probed is the peer of a probe, gone its outcome.
	probed    raft.Peer
	gone      bool
	roundTrip time.Duration
	arrived   time.Time
}

// drained is what one pass of the loop handles together, in the order of the fields: first what completes earlier work
// and shows how things stand, then the peers' requests; the timers are judged then, and users come last.
type drained struct {
	durable  timed[uint64]
	progress []timed[raft.Progress]
	answers  []answer
	rpc      []transport.Incoming
	snapshot []timed[snapshotEvent]
	control  []timed[controlCall]
	api      []request
	// parked came with what began a transfer of leadership, or before its successor was known, and wait for that.
	parked []request
}

// Bounds of one pass, so that a flood of one kind delays the others by little.
const (
	maxDrainRPC = 64
	maxDrainAPI = 2048
)

func (d *drained) reset() {
	d.durable = timed[uint64]{}
	d.progress = d.progress[:0]
	d.answers = d.answers[:0]
	clear(d.rpc)
	d.rpc = d.rpc[:0]
	clear(d.snapshot)
	d.snapshot = d.snapshot[:0]
	clear(d.control)
	d.control = d.control[:0]
	clear(d.api)
	d.api = d.api[:0]
}

// refuse answers what was taken and not handled, when RaftCore ends.
func (d *drained) refuse(logger *slog.Logger) {
	for _, r := range slices.Concat(d.parked, d.api) {
		r.pending.resolve(Result{}, ErrStopped)
	}
	d.parked = nil
	for _, in := range d.rpc {
		in.Refuse("node is stopped")
	}
	for _, f := range d.control {
		f.value.dropped()
	}
	for _, e := range d.snapshot {
		e.value.drop(logger)
	}
	d.reset()
}

func (f controlCall) dropped() {
	if f.drop != nil {
		f.drop()
	}
}

// drain takes what else is waiting, without blocking. What RaftCore cannot take on now (rpc or api) stays in its channel.
func (d *drained) drain(in *inputs, rpc, api bool) {
	select {
	case seq := <-in.durable:
		d.durable = seq
	default:
	}
	for range len(in.progress) {
		d.progress = append(d.progress, <-in.progress)
	}
	for range len(in.answers) {
		d.answers = append(d.answers, <-in.answers)
	}
	for n := len(in.rpc); rpc && n > 0 && len(d.rpc) < maxDrainRPC; n-- {
		d.rpc = append(d.rpc, <-in.rpc)
	}
	for range len(in.snapshot) {
		d.snapshot = append(d.snapshot, <-in.snapshot)
	}
	for range len(in.control) {
		d.control = append(d.control, <-in.control)
	}
	for n := len(in.api); api && n > 0 && len(d.api) < maxDrainAPI; n-- {
		d.api = append(d.api, <-in.api)
	}
}
