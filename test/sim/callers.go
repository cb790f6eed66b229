package sim

import (
	"fmt"
	"slices"
	"time"

	"quorate/node/raft"
	"quorate/node/sessions"
)

// caller is a client with a session: it sends a write again and again under its number, to any node, until it has the answer or gives up.
// Its messages are lost, late and repeated like all others. It reads at every node.
type caller struct {
	w  *world
	id int
	// session is zero while there is none.
	session, sequence uint64
	opening           bool
	// open are the writes without an answer, in the order of their sequences.
	open []*call
	// known is the newest value that it saw, by key, to compare with.
	known [registerKeys]uint64
}

// call is one write of a caller.
type call struct {
	caller *caller
	number uint64
	key    byte
	entry  raft.Entry
	at     int // in the history
	// sent counts the copies that may have reached a log.
	sent int
	over bool
}

// Callers, and how many writes each has open at most.
const (
	callers   = 3
	openCalls = 2
)

func (w *world) beginCalls() {
	for id := range callers {
		c := &caller{w: w, id: id}
		w.after(w.between(0, w.plan.callGap), c.next)
	}
}

// next begins a call, and plans the one after it.
func (c *caller) next() {
	w := c.w
	w.after(w.between(0, 2*w.plan.callGap), c.next)
	if w.calm.begun || len(w.history.ops) >= mostCalls || w.healed && w.chance(0.8) {
		return
	}
	switch {
	case w.chance(0.3):
		c.read()
	case c.session == 0 && !c.opening:
		c.register()
	case c.session != 0 && len(c.open) < openCalls:
		c.write()
	}
}

// register asks for a session. If the answer is lost, so is the session: another is asked for.
func (c *caller) register() {
	w := c.w
	c.opening = true
	w.after(w.plan.engine.ElectionTimeout, func() { c.opening = false })
	entry := raft.Entry{Kind: raft.EntrySession, Data: sessions.Registration(w.plan.sessionIdle)}
	c.deliver(entry, func(o outcome) {
		if c.session == 0 {
			c.session, c.sequence, c.opening = o.id.Index, 0, false
			w.happened(sessionBegun)
		}
	})
}

func (c *caller) write() {
	w := c.w
	w.clients.last++
	k := &call{caller: c, number: w.clients.last, key: byte(w.rng.IntN(registerKeys))}
	in := registerInput{kind: putRegister, key: k.key, value: k.number}
	if w.chance(0.5) {
		in.kind, in.expected = compareAndSet, c.known[k.key]
	}
	data := command(k.number, in.kind, k.key, in.expected)
	if w.chance(0.2) {
		k.entry = raft.Entry{Kind: raft.EntryOnce, Data: sessions.JoinOnce(fmt.Sprintf("%06x", k.number), data)}
	} else {
		c.sequence++
		k.entry = raft.Entry{Kind: raft.EntryCommand, Data: data, Session: c.session, Sequence: c.sequence}
	}
	k.at = w.history.invoke(c.id, in)
	c.open = append(c.open, k)
	k.attempt()
}

// attempt sends the write, and plans to send it again.
func (k *call) attempt() {
	c, w := k.caller, k.caller.w
	entry := k.entry
	if entry.Session != 0 {
		entry.LowWater = c.lowWater(entry.Session)
	}
	copies := 1
	if w.chance(0.05) {
		copies = 2
	}
	for range copies {
		k.sent += c.deliver(entry, k.answered)
	}
	timeout := w.plan.engine.ElectionTimeout
	w.after(w.between(timeout/4, timeout), func() {
		switch {
		case k.over:
		case w.calm.begun || w.chance(0.05):
			k.end() // gives up: nobody knows
		default:
			k.attempt()
		}
	})
}

// lowWater is the sequence below which the caller waits for no answer of that session.
func (c *caller) lowWater(session uint64) uint64 {
	for _, k := range c.open {
		if k.entry.Session == session {
			return k.entry.Sequence
		}
	}
	return 0
}

func (k *call) end() {
	k.over = true
	c := k.caller
	c.open = slices.DeleteFunc(c.open, func(other *call) bool { return other == k })
}

func (k *call) answered(o outcome) {
	c, w := k.caller, k.caller.w
	if k.over {
		return
	}
	k.end()
	if o.refused {
		if c.session == k.entry.Session {
			c.session = 0
		}
		if k.sent == 1 {
			w.effects.neverApplied(k.number)
		}
		return
	}
	w.clients.retried += min(k.sent-1, 1)
	w.effects.answered(k.number, o)
	w.history.answered(k.at, beforeOf(o))
	c.known[k.key] = beforeOf(o)
	if w.chance(0.7) {
		c.known[k.key] = k.number // perhaps
	}
}

// deliver brings an entry to some node, which may hand it on to its leader. It returns how many copies may arrive, at least.
func (c *caller) deliver(entry raft.Entry, done func(outcome)) int {
	w := c.w
	p := w.leader()
	if p == nil || w.chance(0.2) {
		p = w.processes[w.rng.IntN(len(w.processes))]
	}
	back := func(o outcome) {
		if w.healed || !w.chance(0.1+w.plan.loss) {
			w.after(c.latency(), func() { done(o) })
		}
	}
	w.after(c.latency(), func() {
		switch {
		case !p.up:
		case p.engine.Role() == raft.Leader || p.engine.Leader() == p.self:
			p.ask(operation{entry: entry, done: back})
		case p.engine.Leader() != (raft.Peer{}):
			w.net.call(p, p.engine.Leader(), forwardRequest{entry}, w.plan.engine.ElectionTimeout, func(a answer) {
				if o, ok := a.response.(outcome); ok {
					back(o)
				}
			})
		}
	})
	if p.up && p.engine.Role() == raft.Leader {
		return 1
	}
	return 2 // handed on, perhaps twice
}

// latency of a caller's messages: some are very late, and arrive when their write has long been answered.
func (c *caller) latency() time.Duration {
	w := c.w
	if !w.healed && w.chance(0.05) {
		return w.between(0, 3*w.plan.engine.ElectionTimeout)
	}
	return w.between(0, 2*w.plan.delay)
}

// read asks any node for a register.
func (c *caller) read() {
	w := c.w
	p := w.processes[w.rng.IntN(len(w.processes))]
	if !p.up {
		return
	}
	key := byte(w.rng.IntN(registerKeys))
	at := w.history.invoke(c.id, registerInput{key: key})
	op := readOp{floor: w.oracle.floor(), done: func() {
		c.known[key] = p.machine.registers[key]
		w.history.answered(at, c.known[key])
	}}
	switch {
	case p.engine.Role() == raft.Leader && w.plan.lease.on && w.chance(0.7):
		p.leaseRead(op)
	case p.engine.Role() == raft.Leader:
		p.ask(operation{read: &op})
	default:
		p.readThroughLeader(op)
	}
}

// forwardRequest hands a proposal on to the leader.
type forwardRequest struct{ entry raft.Entry }

func (f forwardRequest) String() string { return "forward " + f.entry.String() }

// answerAt answers a read when the state machine is where the read's index says.
func (p *process) answerAt(op readOp) {
	p.parked = append(p.parked, op)
	p.unpark()
}

func (p *process) unpark() {
	p.parked = slices.DeleteFunc(p.parked, func(op readOp) bool {
		if op.index > p.applied.Index {
			return false
		}
		p.answerRead(op)
		return true
	})
}

// answerRead tells a client what the state is now.
func (p *process) answerRead(op readOp) {
	p.w.oracle.seen = max(p.w.oracle.seen, p.applied.Index)
	if op.done != nil {
		op.done()
	}
}
