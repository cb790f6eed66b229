package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"quorate/node/raft"
	"quorate/node/sessions"
	"quorate/storage"
	"quorate/transport"
)

// raftCore is the RaftCore goroutine: it owns all Raft state and is the only writer of the log, the vote and the state
// machine. Nothing in here has a lock, because nothing in here is anyone else's.
//
// It is one loop: wait for one input, drain what else is waiting, hand all of it to the engine, execute the engine's
// output once. Under load the batches grow by themselves; idle, a write waits for nobody.
type raftCore struct {
	cfg       Config
	self      raft.Peer
	genesis   storage.Genesis
	engine    *raft.Engine
	log       storage.LogStore
	sm        StateMachine
	transport transport.Transport
	logger    *slog.Logger

	in    inputs
	taken drained
	// crowded: the last users' requests did not come alone.
	crowded bool
	// transferredAt is when leadership was being handed over last.
	transferredAt time.Time
	syncing       chan<- syncItem
	// The newest write made, and the newest that is durable; see congested.
	writtenSeq, durableSeq uint64
	batching               batching

	workers map[uint64]*workerHandle
	group   *sync.WaitGroup
	watch   *watch

	proposals proposals
	sessions  *sessions.Table
	switches  Switches
	snapshots snapshots
	// fetchProgress is shared with the fetcher; fetcherEnded is closed when the newest fetcher has ended, ended when RaftCore has.
	fetchProgress *fetchProgress
	fetcherEnded  chan struct{}
	ended         chan struct{}
	// heard is shared with those who ask how stale the state may be.
	heard *lastHeard
	// leased is shared with those who read under this node's lease; nil while it has none.
	leased *atomic.Pointer[raft.Leased]
	clock  clock
	// fail stops the node.
	fail    func(error)
	reads   readWaiters
	replies replies
	// told are the answers to operators; see tell.
	told    []func()
	tracing tracing
	metrics *metrics
	// applied is the log id of the newest entry that the state machine has.
	applied raft.LogID
	// applying are the entries that apply read last; the next use the slice again.
	applying []raft.Entry
	// appliedTime is its log time.
	appliedTime int64
	// appliedMembership is the newest configuration that was applied.
	appliedMembership raft.MembershipAt
	// appliedSetting is the newest setting that was applied.
	appliedSetting raft.SettingAt
	// lastTime is the log time of the newest entry.
	lastTime int64
	// violations counts what was refused because Raft rules it out, in a map that is never changed; suspects are those that concern a target now.
	violations map[string]uint64
	suspects   []string
	// targetsAt is when the state of the targets is published next.
	targetsAt time.Time
	// yieldAt is when to ask next whether a voter should lead more than this node.
	yieldAt time.Time
	// replaceAt is when to look next whether a voter is to be replaced.
	replaceAt time.Time
}

type workerHandle struct {
	target chan timed[raft.Target]
	stop   context.CancelFunc
}

// maxUnsynced is how many writes may wait for the disk before no more input is taken: fewer than would make the log store
// block.
const maxUnsynced = 256

// run is the loop. It returns when the context ends, or with the error that stops the node.
func (c *raftCore) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer c.end()
	c.observe(true) // a node that was removed hears of nobody: nothing else would show what it is
	gathers := false
	for {
		if !c.receive(ctx, timer, gathers) {
			return nil
		}
		if err := c.step(); err != nil {
			return err
		}
		c.tickSnapshots(ctx, time.Now())
		if err := c.execute(ctx, c.engine.Output()); err != nil {
			return err
		}
		c.noteHeard()
		gathers = c.set(timer, time.Now())
	}
}

// set has the timer wake the loop for whatever comes first. It reports whether users' requests wait for a quorum until then.
func (c *raftCore) set(timer *time.Timer, now time.Time) (gathers bool) {
	var deadline time.Time // zero: none
	if !c.switches.NoTicks {
		deadline = c.engine.Deadline()
	}
	sooner := func(at time.Time) {
		if deadline.IsZero() || at.Before(deadline) {
			deadline = at
		}
	}
	if gathers = c.awaitingQuorum(now); gathers {
		sooner(c.batching.until)
	}
	if len(c.taken.parked) > 0 && !c.engine.Transferring() {
		sooner(c.transferredAt.Add(c.cfg.ElectionTimeout))
	}
	if deadline.IsZero() {
		timer.Stop()
	} else {
		timer.Reset(deadline.Sub(now))
	}
	return gathers
}

// awaitingSuccessor: this node has just handed leadership over, and has not heard yet of whom to hand requests on to.
func (c *raftCore) awaitingSuccessor(now time.Time) bool {
	return c.engine.Leader() == (raft.Peer{}) && now.Sub(c.transferredAt) < c.cfg.ElectionTimeout
}

// receive waits for one input and drains the rest; users wait if it gathers. It returns false when the context has ended.
func (c *raftCore) receive(ctx context.Context, timer *time.Timer, gathers bool) bool {
	d := &c.taken
	d.reset()
	api, rpc := c.in.api, c.in.rpc
	if c.congested() {
		api, rpc = nil, nil
	}
	if c.backlogged() || c.awaitingSync() || gathers || c.engine.Transferring() {
		api = nil
	}
	if ctx.Err() != nil {
		return false // and nothing is taken that nobody would handle
	}
	if c.mustApply() { // there is work already: take what is here and do not wait
		d.drain(&c.in, rpc != nil, api != nil)
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case d.durable = <-c.in.durable:
	case p := <-c.in.progress:
		d.progress = append(d.progress, p)
	case a := <-c.in.answers:
		d.answers = append(d.answers, a)
	case r := <-rpc:
		d.rpc = append(d.rpc, r)
	case e := <-c.in.snapshot:
		d.snapshot = append(d.snapshot, e)
	case f := <-c.in.control:
		d.control = append(d.control, f)
	case r := <-api:
		d.api = append(d.api, r)
	case <-timer.C:
	}
	if len(d.api) > 0 && c.crowded {
		comeBack(func() int { return len(api) }, runtime.Gosched)
	}
	d.drain(&c.in, rpc != nil, api != nil)
	if len(d.api) > 0 {
		c.crowded = len(d.api) > 1
	}
	return true
}

// congested: the disk is far behind; more writes would block the loop itself.
func (c *raftCore) congested() bool { return c.writtenSeq-c.durableSeq >= maxUnsynced }

// awaitingSync: a write is on its way to the disk; see batching.
func (c *raftCore) awaitingSync() bool { return c.writtenSeq > c.durableSeq }

// awaitingQuorum: much was proposed and is about to be committed; see batching.
func (c *raftCore) awaitingQuorum(now time.Time) bool {
	return c.engine.Role() == raft.Leader && c.batching.waits(c.engine.LastLogID().Index-c.engine.Commit(), now)
}

// backlogged: so much is proposed and not yet committed that users must wait.
func (c *raftCore) backlogged() bool { return c.proposals.bytes >= c.cfg.MaxUncommittedBytes }

// step hands what was taken to the engine. Timers are judged after the messages that arrived before them, and before
// users are heard: a leader that was paused finds that its quorum is gone before it takes their input.
func (c *raftCore) step() error {
	now := time.Now()
	if c.clock.slept(now) {
		c.engine.Slept(now)
	}
	d := &c.taken
	// First, while the engine's view of the log is what is written: an installation changes both.
	for i := 0; i < len(d.snapshot); i++ { // an installation may append what the builder that it ended reports
		e := d.snapshot[i]
		d.snapshot[i] = timed[snapshotEvent]{} // it is in hand
		c.metrics.waited(channelSnapshot, e.sent, now)
		if err := c.takeSnapshotEvent(e.value); err != nil {
			return err
		}
	}
	if d.durable.value > c.durableSeq {
		c.metrics.waited(channelDurable, d.durable.sent, now)
		c.durableSeq = d.durable.value
		c.batching.synced(d.durable.sent)
		c.engine.Durable(d.durable.sent, c.durableSeq)
	}
	for i := range d.progress {
		c.metrics.waited(channelProgress, d.progress[i].sent, now)
		c.engine.Progress(now, d.progress[i].value)
	}
	for _, a := range d.answers {
		c.metrics.waited(channelAnswers, a.arrived, now)
		if a.vote != nil {
			c.engine.VoteAnswer(a.arrived, a.vote)
		} else {
			c.engine.ProbeAnswer(a.arrived, a.probed, a.gone, a.roundTrip)
		}
	}
	rpc := d.rpc
	d.rpc = d.rpc[:0]
	defer clear(rpc)
	for _, r := range rpc {
		c.tracing.received(&r, now)
		c.metrics.queued(r.Trace, channelRPC, r.Arrived, now)
		to := c.replies.keep(r)
		switch req := r.Request.(type) {
		case *raft.AppendRequest:
			c.engine.Append(r.Arrived, req, to)
		case *raft.VoteRequest:
			c.engine.VoteRequested(r.Arrived, req, to)
		case *raft.InstallRequest:
			c.engine.Install(r.Arrived, req, to)
		case *raft.TimeoutNowRequest:
			c.engine.TimeoutNow(r.Arrived, req, to)
		}
	}
	if !c.switches.NoTicks {
		c.engine.Tick(now)
	}
	for i, f := range d.control {
		d.control[i] = timed[controlCall]{}
		c.metrics.waited(channelControl, f.sent, now)
		f.value.run(c)
	}
	c.replaceGone(now)
	c.yield(now)
	c.takeRequests(now)
	return nil
}

// takeRequests proposes and reads for users: all proposals of a pass are appended in one step, all its reads share one
// token.
func (c *raftCore) takeRequests(now time.Time) {
	requests := c.taken.api
	c.taken.api = c.taken.api[:0]
	defer clear(requests)
	if len(requests) > 0 {
		c.tracing.queued(requests, now)
		c.metrics.took(requests, now)
	}
	if c.engine.Transferring() { // they came together with what began it
		c.transferredAt = now
		c.taken.parked = append(c.taken.parked, requests...)
		return
	}
	if len(c.taken.parked) > 0 {
		requests = append(c.taken.parked, requests...)
		c.taken.parked = nil
	}
	if len(requests) == 0 {
		return
	}
	if c.engine.Role() != raft.Leader {
		c.forward(now, requests)
		return
	}
	entries := make([]raft.Entry, 0, len(requests))
	var reads, leased []request
	c.lastTime = max(c.lastTime, now.UnixNano())
	for _, r := range requests {
		switch {
		case r.leased:
			leased = append(leased, r)
			continue
		case r.read:
			reads = append(reads, r)
			continue
		}
		r.pending.entry.Time = c.lastTime
		entries = append(entries, r.pending.entry)
	}
	if len(entries) > 0 {
		first, _ := c.engine.Propose(now, entries)
		for _, r := range requests {
			if r.read {
				continue
			}
			r.pending.id = first
			first.Index++
			c.proposals.add(r.pending)
			c.tracing.proposed(r.pending.trace, r.pending.id)
		}
	}
	if reads = append(reads, c.readLeased(leased)...); len(reads) > 0 {
		c.engine.Read(now, c.reads.add(reads))
	}
}

// execute does what the engine decided: one write to the log, one nudge for each worker, the replies, one slice of
// applying.
func (c *raftCore) execute(ctx context.Context, out raft.Output) error {
	if out.Halt != "" {
		return fmt.Errorf("%s: %w", out.Halt, ErrUpgrade)
	}
	c.publishLease() // before anything that others can see
	c.tracing.advance(c.engine, c.durableSeq)
	if out.Write != nil {
		if err := c.write(out.Write); err != nil {
			return err
		}
	}
	for _, v := range out.Votes {
		c.sendVote(v)
	}
	for i := range out.VoteReplies {
		c.replies.answer(out.VoteReplies[i].To, &out.VoteReplies[i].Response)
	}
	for i := range out.TimeoutNow {
		c.transport.Call(out.TimeoutNow[i].To, &out.TimeoutNow[i].Request, c.cfg.ElectionTimeout, func(transport.Answer) {})
	}
	for i := range out.TimeoutNowReplies {
		c.replies.answer(out.TimeoutNowReplies[i].To, &out.TimeoutNowReplies[i].Response)
	}
	for i := range out.AppendReplies {
		c.replies.answer(out.AppendReplies[i].To, &out.AppendReplies[i].Response)
	}
	if out.Probe != nil {
		c.probe(ctx, *out.Probe)
	}
	if out.Fetch != nil {
		c.fetch(ctx, *out.Fetch)
	}
	if out.NeedSnapshot {
		c.snapshots.wanted = !c.snapshots.building
		if out.SnapshotDamaged {
			c.logger.Warn("the newest snapshot is damaged in the object store; it is built again")
			c.snapshots.whole, c.snapshots.newest, c.snapshots.manifest = true, storage.SnapshotRef{}, nil
		}
	}
	if out.Replicate {
		c.replicate(ctx)
	}
	for _, v := range out.Violations {
		c.refuse(v)
	}
	for _, r := range out.Reads {
		c.reads.decided(r, c.applied.Index, &NotLeaderError{Leader: c.engine.Leader().ID})
	}
	if err := c.apply(); err != nil {
		return err
	}
	c.observe(out.Changed || len(c.told) > 0 || len(out.Violations) > 0)
	c.answerOperators()
	return nil
}

// tell answers an operator at the end of this pass, when the state is published: who is told of something finds it in the status.
func (c *raftCore) tell(answer func()) { c.told = append(c.told, answer) }

func (c *raftCore) answerOperators() {
	for _, answer := range c.told {
		answer()
	}
	clear(c.told)
	c.told = c.told[:0]
}

// refuse notes that a peer did what Raft rules out, and that it was refused. What is kept of that is bounded: a peer that lies, lies often.
func (c *raftCore) refuse(violation string) {
	const mostKinds, mostSuspects = 32, 16
	c.logger.Error("refused what Raft rules out", "what", violation)
	if _, known := c.violations[violation]; !known && len(c.violations) >= mostKinds {
		violation = "other violations of Raft"
	}
	c.violations = maps.Clone(c.violations) // the status has the old one
	c.violations[violation]++
	if c.engine.Role() == raft.Leader && len(c.suspects) < mostSuspects {
		c.suspects = append(c.suspects, violation)
	}
}

// write gives a change to the log store. The leader encodes its own entries here, once: the same bytes go to every disk
// and wire.
func (c *raftCore) write(w *raft.Write) error {
	began := time.Now()
	span := c.tracing.wrote(w, began)
	// The engine's own entries are of the time of what follows them: time never goes back along the log.
	next := max(c.lastTime, began.UnixNano())
	for i := range slices.Backward(w.Append) {
		if entry := &w.Append[i]; entry.Raw == nil && entry.Time == 0 {
			entry.Time = next
		}
		next = w.Append[i].Time
	}
	for i := range w.Append {
		entry := &w.Append[i]
		if entry.Raw == nil {
			if err := storage.SealEntry(entry); err != nil {
				return fmt.Errorf("encode entry %v: %w", entry.ID, err)
			}
		}
		c.lastTime = max(c.lastTime, entry.Time)
		c.snapshots.appendedBytes += uint64(len(entry.Raw))
	}
	commit, err := c.log.Write(storage.Write{Vote: w.Vote, TruncateFrom: w.TruncateFrom, Append: w.Append})
	if err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	c.writtenSeq = w.Seq
	c.batching.wrote(began)
	c.syncing <- syncItem{seq: w.Seq, commit: commit, began: began, entries: len(w.Append), trace: span} // has room for more than maxUnsynced
	return nil
}

func (c *raftCore) sendVote(v raft.SendVote) {
	callTraced(c.transport, v.To, &v.Request, c.tracing.vote(&v), c.cfg.ElectionTimeout, func(a transport.Answer) {
		resp, ok := a.Response.(*raft.VoteResponse)
		if a.Err != nil || !ok {
			return // a vote that does not come is not given
		}
		select {
		case c.in.answers <- answer{vote: resp, arrived: a.Arrived}:
		default:
		}
	})
}

// probe asks NATS whether the leader's process is there.
func (c *raftCore) probe(ctx context.Context, peer raft.Peer) {
	sent := time.Now()
	c.transport.Call(peer, &transport.PingRequest{}, c.cfg.HeartbeatInterval*2, func(a transport.Answer) {
		now := time.Now()
		outcome := answer{
			probed: peer, gone: errors.Is(a.Err, transport.ErrNoResponders), roundTrip: now.Sub(sent), arrived: now,
		}
		select {
		case c.in.answers <- outcome: // the engine asks one at a time, so there is room
		case <-ctx.Done():
		}
	})
}

// replicate starts a worker for each new target, stops those whose target is gone, and tells the others the newest.
func (c *raftCore) replicate(ctx context.Context) {
	targets := c.engine.Replication()
	for id, w := range c.workers {
		served := false
		for _, t := range targets {
			served = served || t.Worker == id
		}
		if !served {
			w.stop()
			delete(c.workers, id)
		}
	}
	for _, t := range targets {
		if w, ok := c.workers[t.Worker]; ok {
			replace(w.target, timed[raft.Target]{t, c.metrics.now()})
			continue
		}
		c.startWorker(ctx, t)
	}
	if len(targets) == 0 && c.engine.Role() != raft.Leader {
		c.proposals.orphan()
		c.suspects = nil
	}
}

func (c *raftCore) startWorker(ctx context.Context, t raft.Target) {
	ctx, stop := context.WithCancel(ctx)
	handle := &workerHandle{target: make(chan timed[raft.Target], 1), stop: stop}
	c.workers[t.Worker] = handle
	limits := raft.ReplicatorConfig{
		HeartbeatInterval: c.cfg.HeartbeatInterval,
		MaxInFlight:       c.cfg.MaxInFlight,
		MaxInFlightBytes:  c.cfg.MaxInFlightBytes,
		MaxMessageBytes:   mostMessageBytes,
	}
	w := &worker{
		target:   handle.target,
		progress: c.in.progress,
		// Room for what the replicator can have under way, so that the transport's goroutine does not wait here.
		answers:    make(chan appendAnswer, 256),
		replicator: raft.NewReplicator(limits, t, time.Now()),
		log:        c.log,
		transport:  c.transport,
		self:       c.self,
		newest:     t,
		timeout:    2 * c.cfg.ElectionTimeout,
		logger:     c.logger,
		telemetry:  c.cfg.Telemetry,
		sampled:    c.tracing.entries,
		metrics:    c.metrics,
		measured:   c.metrics.target(t.Peer.ID),
	}
	c.group.Go(func() { w.run(ctx) })
}

// mostMessageBytes keeps messages small enough that a heartbeat does not wait long behind one.
const mostMessageBytes = 512 << 10

// maxMessageBytes is how many bytes of entries a message may have now, with room for what surrounds them.
func maxMessageBytes(t transport.Transport) int {
	return max(1, min(mostMessageBytes, t.MaxRequestBytes()-EntryEnvelope))
}

// end answers everything that waits. The workers end with the context.
func (c *raftCore) end() {
	c.leased.Store(nil)
	c.taken.refuse(c.logger)
	c.answerOperators()
	c.proposals.failAll(ErrStopped)
	c.reads.failAll(ErrStopped)
	c.replies.refuseAll("node is stopped")
	c.tracing.end()
	for _, w := range c.workers {
		w.stop()
	}
	for _, answer := range c.snapshots.waiting {
		answer(storage.SnapshotRef{}, ErrStopped)
	}
	if c.snapshots.fetching != nil {
		c.snapshots.fetching()
	}
	close(c.ended)
}
