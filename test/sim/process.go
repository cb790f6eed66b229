package sim

import (
	"math/rand/v2"
	"time"

	"quorate/node/raft"
)

// process is one node: its engine, its workers and its state machine, over a disk that outlives it.
type process struct {
	w     *world
	index int
	self  raft.Peer
	disk  *disk

	up bool
	// life counts starts and crashes: what was meant for an earlier life is dropped.
	life int
	boot uint64
	// speaks are the newest versions of this life.
	speaks raft.Versions
	// frozen: the whole process does nothing before that time; busy: its core does nothing, its workers go on.
	frozen, busy time.Duration

	engine    *raft.Engine
	workers   []*worker
	inbox     inbox
	scheduled bool
	timer     int
	replies   map[raft.ReplyTo]incoming
	lastReply raft.ReplyTo

	applied  raft.LogID
	waiting  []proposal
	reads    map[raft.ReadID]readOp
	lastRead raft.ReadID
	// parked reads wait for the state to be up to their index.
	parked  []readOp
	machine machine
	// lastTime is the newest log time that this life knows of.
	lastTime int64
	clock
	lease lease
	// building: a snapshot is on its way to the store.
	building bool
	// transferring is when the leader began to hand over.
	transferring time.Duration
	back         back
	// alone is since when it leads although no quorum answers, or zero.
	alone time.Duration
}

// inbox is what waits for the core, in the order in which the core hands it to the engine.
type inbox struct {
	durable  uint64
	synced   time.Time // since when durable is
	progress []raft.Progress
	answers  []func(*raft.Engine)
	rpc      []incoming
	api      []operation
	// fetched are snapshots that are here and wait to be installed.
	fetched []stored
}

type incoming struct {
	request any
	arrived time.Time
	reply   func(response any, err error)
}

// maxInbox is how many requests of peers may wait.
const maxInbox = 256

func newProcess(w *world, index int) *process {
	p := &process{w: w, index: index, self: peer(index)}
	p.disk = &disk{w: w, node: index}
	if w.plan.versions.on {
		p.speaks = w.plan.versions.oldest[index]
	}
	return p
}

// start begins a life with what is on disk.
func (p *process) start() {
	w := p.w
	p.up = true
	p.life++
	p.boot = w.rng.Uint64() | 1
	p.inbox = inbox{}
	p.scheduled = false
	p.replies = map[raft.ReplyTo]incoming{}
	p.reads = map[raft.ReadID]readOp{}
	p.applied, p.lastTime = p.disk.flushed, 0
	p.load(p.disk.state)
	p.alone = 0
	p.disk.durable = func(seq uint64) {
		p.disk.moved = max(w.now, p.frozen) // a process that is paused hears of it afterwards, and cannot know since when it is so
		if seq > p.inbox.durable {
			p.inbox.durable, p.inbox.synced = seq, p.arrival()
		}
		p.wake()
	}
	p.building = false
	if !p.disk.visible.has(p.applied) { // a snapshot was installed, and the log was not reset any more
		p.disk.reset(p.applied)
	}
	last := p.disk.visible.last()
	view, err := raft.NewLogView(p.disk.visible.purged, last, p.disk.Term)
	if err != nil {
		w.fail("restart of n%d: %w", p.index+1, err)
		return
	}
	p.noteTimes(p.disk.visible.entries[p.disk.visible.purged.Index:])
	memberships := []raft.MembershipAt{{Membership: w.plan.membership}}
	for _, entry := range p.disk.visible.entries {
		if entry.Kind != raft.EntryMembership {
			continue
		}
		if entry.ID.Index <= p.applied.Index {
			memberships = memberships[:0]
		}
		memberships = append(memberships, raft.MembershipAt{ID: entry.ID, Membership: entry.Membership})
	}
	cfg := w.plan.engine
	cfg.Self, cfg.Versions = p.self, p.speaks
	cfg.Rand = rand.New(rand.NewPCG(w.rng.Uint64(), 2))
	p.engine = raft.New(cfg, raft.Restored{
		Vote: p.disk.visible.vote, Log: view, Committed: p.applied, Memberships: memberships, Settings: p.settingsTo(p.disk.visible.last()),
	}, p.time())
	if newest, ok := w.store.find(); ok && w.chance(0.5) {
		p.engine.SetSnapshot(newest.ref) // it looked into the store
	}
	w.trace.add(w.now, "starts", p.index, -1, last.Index, last.Term, nil)
	w.oracle.started(p)
	w.oracle.checkSetting(p)
	p.wake()
}

// crash ends a life. What was not synced is gone, as far as the disk's luck goes.
func (p *process) crash() {
	if !p.up {
		return
	}
	p.up = false
	p.life++
	p.w.crashes++
	for _, k := range p.workers {
		k.stopped = true
	}
	p.workers = nil
	p.lease = lease{}
	p.failWaiting()
	p.disk.crash()
	p.engine = nil
	p.upgrade()
	last := p.disk.visible.last()
	p.w.trace.add(p.w.now, "crashes", p.index, -1, last.Index, last.Term, nil)
	p.w.oracle.crashed()
}

// arrival is when something that comes now is noticed.
func (p *process) arrival() time.Time { return p.time() }

// wake lets the core run soon.
func (p *process) wake() {
	if !p.up || p.scheduled {
		return
	}
	p.scheduled = true
	life := p.life
	at := max(p.w.now+p.w.between(0, 100*time.Microsecond), p.frozen, p.busy)
	p.w.after(at-p.w.now, func() {
		if p.life == life {
			p.run()
		}
	})
}

// run is one pass of the core.
func (p *process) run() {
	p.scheduled = false
	if p.w.now < max(p.frozen, p.busy) { // paused since it was woken
		p.wake()
		return
	}
	p.w.steps++
	in := p.inbox
	p.inbox = inbox{}
	before := p.w.oracle.before(p)
	if !p.install(in.fetched) {
		return // it crashed in the middle
	}
	p.step(in)
	out := p.engine.Output()
	p.w.oracle.decided(p, before, out)
	if p.execute(before, out); !p.up {
		return // it has halted
	}
	p.w.oracle.after(p, before)
	p.setTimer()
}

func (p *process) step(in inbox) {
	now := p.time()
	if p.asleep {
		p.asleep = false
		p.engine.Slept(now)
	}
	if in.durable > 0 {
		p.engine.Durable(in.synced, in.durable)
	}
	for _, progress := range in.progress {
		p.engine.Progress(now, progress)
	}
	for _, tell := range in.answers {
		tell(p.engine)
	}
	for _, r := range in.rpc {
		p.lastReply++
		p.replies[p.lastReply] = r
		switch req := r.request.(type) {
		case *raft.AppendRequest:
			p.engine.Append(r.arrived, req, p.lastReply)
		case *raft.VoteRequest:
			p.engine.VoteRequested(r.arrived, req, p.lastReply)
		case *raft.InstallRequest:
			p.engine.Install(r.arrived, req, p.lastReply)
		case *raft.TimeoutNowRequest:
			p.engine.TimeoutNow(r.arrived, req, p.lastReply)
		case readIndexRequest:
			p.readFor(now, p.lastReply)
		}
	}
	p.engine.Tick(now)
	p.take(now, in.api)
}

func (p *process) execute(before past, out raft.Output) {
	w := p.w
	if out.Halt != "" {
		p.halt(out.Halt)
		return
	}
	p.publishLease()
	if out.Write != nil {
		w.trace.add(w.now, "writes", p.index, -1, out.Write.Seq, uint64(len(out.Write.Append)), out.Write)
		p.disk.write(out.Write)
		p.noteTimes(out.Write.Append)
		w.oracle.written(p, out.Write)
		if p.engine.Role() == raft.Leader {
			w.oracle.raises(p, before, out.Write.Append)
		}
	}
	w.oracle.commits(p, before)
	for _, v := range out.Votes {
		request := v.Request
		w.net.call(p, v.To, &request, w.plan.engine.ElectionTimeout, func(a answer) {
			if response, ok := a.response.(*raft.VoteResponse); ok {
				p.hearVote(a.arrived, response)
			}
		})
	}
	for i := range out.VoteReplies {
		p.reply(out.VoteReplies[i].To, &out.VoteReplies[i].Response)
	}
	for i := range out.AppendReplies {
		p.reply(out.AppendReplies[i].To, &out.AppendReplies[i].Response)
	}
	for i := range out.TimeoutNow {
		request := out.TimeoutNow[i].Request
		w.net.call(p, out.TimeoutNow[i].To, &request, w.plan.engine.ElectionTimeout, func(answer) {})
	}
	for i := range out.TimeoutNowReplies {
		p.reply(out.TimeoutNowReplies[i].To, &out.TimeoutNowReplies[i].Response)
	}
	if out.Fetch != nil {
		p.fetch(*out.Fetch)
	}
	if out.NeedSnapshot {
		p.build()
	}
	if out.Probe != nil {
		w.happened(leaderProbed)
		p.probe(*out.Probe)
	}
	if out.Replicate {
		p.replicate()
	}
	for _, r := range out.Reads {
		p.decide(r)
	}
	p.apply()
}

// hearVote takes the answer to a request for a vote, and now and then the same once more: nothing may depend on the network for that.
func (p *process) hearVote(arrived time.Time, response *raft.VoteResponse) {
	w := p.w
	p.tell(func(e *raft.Engine) { e.VoteAnswer(arrived, response) })
	if w.healed || !w.chance(w.plan.duplicate) {
		return
	}
	life := p.life
	w.after(w.between(0, w.plan.engine.ElectionTimeout), func() {
		if p.life == life {
			p.tell(func(e *raft.Engine) { e.VoteAnswer(p.arrival(), response) })
		}
	})
}

func (p *process) reply(to raft.ReplyTo, response any) {
	waiting, ok := p.replies[to]
	if !ok {
		p.w.fail("n%d answers request %d, which does not wait for an answer", p.index+1, to)
		return
	}
	delete(p.replies, to)
	waiting.reply(response, nil)
}

func (p *process) probe(leader raft.Peer) {
	sent := p.w.now
	p.w.net.call(p, leader, ping{}, 2*p.w.plan.engine.HeartbeatInterval, func(a answer) {
		roundTrip := p.w.now - sent
		if a.err == errNoResponders {
			p.w.happened(leaderGone)
		}
		p.tell(func(e *raft.Engine) { e.ProbeAnswer(a.arrived, leader, a.err == errNoResponders, roundTrip) })
	})
}

type ping struct{}

func (ping) String() string { return "ping" }

func (p *process) tell(what func(*raft.Engine)) {
	p.inbox.answers = append(p.inbox.answers, what)
	p.wake()
}

// receive takes a request of a peer. A ping is answered by the transport itself.
func (p *process) receive(in incoming) {
	if _, ok := in.request.(ping); ok {
		life := p.life
		p.w.after(max(0, p.frozen-p.w.now), func() {
			if p.life == life {
				in.reply(ping{}, nil)
			}
		})
		return
	}
	if f, ok := in.request.(forwardRequest); ok {
		p.w.happened(proposalForwarded)
		p.ask(operation{entry: f.entry, done: func(o outcome) { in.reply(o, nil) }})
		return
	}
	if len(p.inbox.rpc) >= maxInbox {
		in.reply(nil, errBusy)
		return
	}
	p.inbox.rpc = append(p.inbox.rpc, in)
	p.wake()
}

// apply gives the state machine what may be applied.
func (p *process) apply() {
	upTo := p.engine.Applicable()
	for p.applied.Index < upTo && p.w.err == nil {
		p.applySome(upTo)
	}
	p.settle()
	clear(p.machine.outcomes)
	p.unpark()
	if p.w.chance(0.05) {
		p.flush() // the state machine's own
	}
	p.keepHouse()
}

func (p *process) setTimer() {
	if !p.up {
		return
	}
	p.timer++
	timer, life := p.timer, p.life
	p.w.after(p.until(p.engine.Deadline()), func() {
		if p.life == life && p.timer == timer {
			p.wake()
		}
	})
}
