package sim

import (
	"encoding/binary"
	"time"

	"quorate/node/raft"
)

// clients write and read all the time, each operation once. A write carries a number of its own, so that every entry is
// different.
type clients struct {
	w    *world
	last uint64
	// acked and answered count writes and reads that succeeded.
	acked, answered int
	// done: the cluster has shown that it is alive again.
	done bool
	// final is the number of the first write after all faults were healed, goal the index of one that was acknowledged.
	final, goal uint64
	changed     int
	// retried counts writes that were sent more than once and answered.
	retried int
	// leased counts reads under a lease.
	leased int
}

// operation is a call that waits for the core.
type operation struct {
	entry raft.Entry
	// done, if not nil, is given the entry's outcome, when there is one.
	done func(outcome)
	read *readOp
	// do is what an operator asks of a leader.
	do func(*raft.Engine, time.Time)
}

// proposal waits for its entry to be applied here.
type proposal struct {
	id     raft.LogID
	number uint64
	done   func(outcome)
}

// readOp is a linearizable read: it must see at least what was acknowledged before it began.
type readOp struct {
	floor uint64
	index uint64
	// peer, if not zero, waits for the index of a read of its own.
	peer raft.ReplyTo
	// leased: under the leader's lease, if it has one.
	leased bool
	// done, if not nil, is called when the state is up to the index.
	done func()
}

func (c *clients) begin() {
	c.w.after(c.w.between(0, 2*c.w.plan.clientGap), c.next)
}

// mostUncommitted bounds what a leader takes on before it refuses, as the node does.
const mostUncommitted = 50

// next begins one operation, and plans the one after it.
func (c *clients) next() {
	w := c.w
	if c.begin(); w.calm.begun || w.healed && w.chance(0.8) {
		return
	}
	p := w.leader()
	if p == nil || w.chance(0.1) {
		p = w.processes[w.rng.IntN(len(w.processes))]
	}
	if !p.up {
		return
	}
	switch {
	case w.plan.changes && !w.healed && w.chance(w.changeRate()):
		c.change(p)
	case w.plan.transfers && !w.healed && w.chance(0.03):
		to := w.processes[w.rng.IntN(len(w.processes))].self.ID
		if w.chance(0.3) {
			to = ""
		}
		p.ask(operation{do: func(e *raft.Engine, now time.Time) { p.transfer(now, to) }})
	case w.plan.transfers && !w.healed && w.chance(0.02):
		p.tell(func(e *raft.Engine) {
			if e.Elect(p.time()) {
				w.happened(electionByHand)
			}
		})
	case w.plan.lease.on && c.leases(p):
	case w.chance(w.plan.reads) && p.engine.Role() != raft.Leader:
		p.readThroughLeader(readOp{floor: w.oracle.floor()})
	case w.chance(w.plan.reads):
		p.ask(operation{read: &readOp{floor: w.oracle.floor()}})
	default:
		p.ask(operation{entry: c.write()})
	}
}

func (c *clients) write() raft.Entry {
	c.last++
	return raft.Entry{Kind: raft.EntryCommand, Data: binary.BigEndian.AppendUint64(nil, c.last)}
}

// changeRate is how often clients change the membership: more often when somebody waits to be replaced.
func (w *world) changeRate() float64 {
	if len(w.wiped) > 0 {
		return 0.3
	}
	return 0.1
}

// change asks for another membership: any set of voters and learners, the leader need not be among them.
func (c *clients) change(p *process) {
	w := c.w
	current := p.engine.MembershipAt()
	var change raft.Change
	for _, q := range w.processes {
		switch {
		case w.chance(0.6):
			change.Voters = append(change.Voters, q.self)
		case w.chance(0.5):
			change.Learners = append(change.Learners, q.self)
		}
	}
	if replaced, needed := w.replace(current.Membership); needed && w.chance(0.7) {
		change = replaced
	}
	if w.chance(0.5) {
		change.If = &current.ID
	}
	change.Force = w.chance(0.7) // else most are refused: who was never a member has not caught up
	c.changed++
	p.ask(operation{do: func(e *raft.Engine, now time.Time) {
		if w.namesWiped(change) {
			return
		}
		if _, err := e.ChangeMembership(now, change); err != nil {
			w.happened(changeRefused)
		} else {
			w.happened(changeBegun)
		}
	}})
}

// transfer asks a leader to hand over.
func (p *process) transfer(now time.Time, to raft.NodeID) {
	if p.engine.Transfer(now, to) == nil && p.engine.Transferring() {
		p.transferring = p.w.now
		p.w.happened(transferBegun)
	}
}

// ask puts an operation into the inbox.
func (p *process) ask(op operation) {
	p.inbox.api = append(p.inbox.api, op)
	p.wake()
}

// take hands the clients' operations to the engine: all proposals in one step, and each read.
func (p *process) take(now time.Time, ops []operation) {
	if len(ops) == 0 || p.engine.Role() != raft.Leader {
		return // refused: not the leader
	}
	for _, op := range ops {
		if op.do != nil {
			op.do(p.engine, now)
		}
	}
	if p.engine.Role() != raft.Leader || p.engine.Transferring() {
		return // refused, or waits with its client
	}
	var entries []raft.Entry
	var done []func(outcome)
	for _, op := range ops {
		if op.read != nil || op.do != nil || p.engine.LastLogID().Index-p.engine.Commit() > mostUncommitted {
			continue
		}
		op.entry.Time = p.logTime(now)
		entries, done = append(entries, op.entry), append(done, op.done)
	}
	if len(entries) > 0 {
		first, ok := p.engine.Propose(now, entries)
		if !ok {
			p.w.fail("n%d leads but does not take proposals", p.index+1)
			return
		}
		for i := range entries {
			id := raft.LogID{Term: first.Term, Index: first.Index + uint64(i)}
			p.waiting = append(p.waiting, proposal{id: id, number: numberOf(&entries[i]), done: done[i]})
		}
	}
	for _, op := range ops {
		if op.read == nil || op.read.leased && p.readLeased(*op.read) {
			continue
		}
		if !p.engine.Serving() {
			p.w.happened(readBeforeFirstCommit)
		}
		p.lastRead++
		p.reads[p.lastRead] = *op.read
		if !p.engine.Read(now, p.lastRead) {
			p.w.fail("n%d leads but does not take reads", p.index+1)
		}
	}
}

// decide takes the engine's word on a read.
func (p *process) decide(r raft.ReadReady) {
	op, ok := p.reads[r.ID]
	if !ok {
		p.w.fail("n%d decides read %d, which does not wait", p.index+1, r.ID)
		return
	}
	delete(p.reads, r.ID)
	if r.Lost {
		p.w.happened(readLost)
	}
	if op.peer != 0 {
		waiting := p.replies[op.peer]
		delete(p.replies, op.peer)
		if r.Lost {
			waiting.reply(nil, errBusy)
		} else {
			waiting.reply(readIndexResponse{r.Index}, nil)
		}
		return
	}
	if r.Lost {
		return
	}
	op.index = r.Index
	p.w.oracle.read(p, op)
	p.w.happened(readAtLeader)
	p.w.clients.answered++
	p.answerAt(op)
}

// settle acknowledges the proposals whose entries have been applied, and forgets those that others took the place of.
func (p *process) settle() {
	kept := p.waiting[:0]
	for _, waiting := range p.waiting {
		switch {
		case waiting.id.Index > p.applied.Index:
			kept = append(kept, waiting)
		case p.disk.visible.has(waiting.id):
			p.w.clients.acknowledged(p, waiting)
			if o, ok := p.machine.outcomes[waiting.id.Index]; ok && waiting.done != nil {
				waiting.done(o)
			}
		}
	}
	p.waiting = kept
}

func (c *clients) acknowledged(p *process, done proposal) {
	c.acked++
	c.w.oracle.acknowledged(p, done.id)
	if c.w.healed && c.goal == 0 && done.number >= c.final {
		c.goal = done.id.Index
	}
}

func (p *process) failWaiting() {
	p.waiting = nil
	p.reads = nil
	p.parked = nil
}
