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
}

// operation is a call that waits for the core.
type operation struct {
	entry raft.Entry
	read  *readOp
}

// proposal waits for its entry to be applied here.
type proposal struct {
	id     raft.LogID
	number uint64
}

// readOp is a linearizable read: it must see at least what was acknowledged before it began.
type readOp struct {
	floor uint64
	index uint64
}

func (c *clients) begin() {
	c.w.after(c.w.between(0, 2*c.w.plan.clientGap), c.next)
}

// mostUncommitted bounds what a leader takes on before it refuses, as the node does.
const mostUncommitted = 50

// next begins one operation, and plans the one after it.
func (c *clients) next() {
	w := c.w
	if c.begin(); w.healed && w.chance(0.8) {
		return // calm
	}
	p := w.leader()
	if p == nil || w.chance(0.1) {
		p = w.processes[w.rng.IntN(len(w.processes))]
	}
	if !p.up {
		return
	}
	switch {
	case w.plan.changes && !w.healed && w.chance(0.1):
		c.change(p)
	case w.chance(w.plan.reads):
		p.ask(operation{read: &readOp{floor: w.oracle.acked}})
	default:
		p.ask(operation{entry: c.write()})
	}
}

func (c *clients) write() raft.Entry {
	c.last++
	return raft.Entry{Kind: raft.EntryCommand, Data: binary.BigEndian.AppendUint64(nil, c.last)}
}

// change asks for a step of a membership change: into a joint configuration with another set of voters, or out of one. It keeps
// the rules that the node will keep: one change at a time, by a leader that has committed an entry of its own.
func (c *clients) change(p *process) {
	e := p.engine
	if e.Role() != raft.Leader || !e.Serving() || p.uncommittedChange() {
		return
	}
	current := e.Membership()
	next := current.Leave()
	if !current.Joint() {
		next = c.w.jointChange(current)
	}
	if next != nil {
		c.changed++
		p.ask(operation{entry: raft.Entry{Kind: raft.EntryMembership, Membership: next}})
	}
}

// jointChange draws other voters. The leader need not be among them.
func (w *world) jointChange(current *raft.Membership) *raft.Membership {
	next := &raft.Membership{}
	voters := 0
	for _, p := range w.processes {
		member, known := current.Find(p.self.ID)
		if !known {
			member = raft.Member{Peer: p.self}
		}
		member.Outgoing = member.Voter
		member.Voter = w.chance(0.5)
		member.Retain = true
		if member.Voter {
			voters++
		}
		next.Members = append(next.Members, member)
	}
	if voters == 0 || !next.Joint() {
		return nil
	}
	return next
}

func (p *process) uncommittedChange() bool {
	for _, entry := range p.disk.visible.entries[min(p.engine.Commit(), uint64(len(p.disk.visible.entries))):] {
		if entry.Kind == raft.EntryMembership {
			return true
		}
	}
	return false
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
	var entries []raft.Entry
	for _, op := range ops {
		if op.read != nil || p.engine.LastLogID().Index-p.engine.Commit() > mostUncommitted {
			continue
		}
		if op.entry.Kind == raft.EntryMembership && (len(entries) > 0 || p.uncommittedChange()) {
			continue
		}
		entries = append(entries, op.entry)
		if op.entry.Kind == raft.EntryMembership {
			break
		}
	}
	if len(entries) > 0 {
		first, ok := p.engine.Propose(now, entries)
		if !ok {
			p.w.fail("n%d leads but does not take proposals", p.index+1)
			return
		}
		for i, entry := range entries {
			if entry.Kind != raft.EntryCommand {
				continue
			}
			id := raft.LogID{Term: first.Term, Index: first.Index + uint64(i)}
			p.waiting = append(p.waiting, proposal{id: id, number: binary.BigEndian.Uint64(entry.Data)})
		}
	}
	for _, op := range ops {
		if op.read == nil {
			continue
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
		return
	}
	op.index = r.Index
	p.w.oracle.read(p, op)
	p.w.clients.answered++
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
}
