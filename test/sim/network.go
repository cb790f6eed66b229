package sim

import (
	"errors"
	"time"

	"quorate/node/raft"
)

var (
	errNoResponders = errors.New("no responders")
	errTimeout      = errors.New("timeout")
	errBusy         = errors.New("busy")
)

// network carries requests and answers, as NATS does: at most once as a rule, but with repetition and reordering. A
// request to a process that is down is answered by "no responders".
type network struct {
	w *world
	// cut[from][to]: nothing arrives, as if a cable were cut.
	cut [][]bool
	// hidden[from][to]: NATS at from knows nothing of to's subscription; requests get "no responders" although to lives.
	hidden [][]bool
	// slow[from][to]: what is sent takes up to an election timeout.
	slow [][]bool
	// chaos: half of everything is slow until that time.
	chaos time.Duration
}

type answer struct {
	response any
	boot     uint64
	err      error
	arrived  time.Time
}

func newNetwork(w *world) network {
	n := network{w: w}
	for range w.plan.nodes {
		n.cut = append(n.cut, make([]bool, w.plan.nodes))
		n.hidden = append(n.hidden, make([]bool, w.plan.nodes))
		n.slow = append(n.slow, make([]bool, w.plan.nodes))
	}
	return n
}

// call sends a request. done is called exactly once, unless the caller has crashed by then.
func (n *network) call(from *process, to raft.Peer, request any, timeout time.Duration, done func(answer)) {
	w := n.w
	life, answered := from.life, false
	finish := func(a answer) {
		if answered || from.life != life {
			return
		}
		answered = true
		a.arrived = from.arrival()
		done(a)
	}
	target := n.find(to)
	if w.wiped[to] != nil && w.chance(0.3) {
		target = n.named(to.ID) // subjects carry the incarnation, but nothing may depend on that
	}
	w.after(timeout, func() { finish(answer{err: errTimeout}) })
	if target == nil || n.hidden[from.index][target.index] {
		w.after(w.plan.delay, func() { finish(answer{err: errNoResponders}) })
		return
	}
	w.trace.add(w.now, "sends", from.index, target.index, uint64(from.life), 0, request)
	n.carry(from.index, target.index, func() {
		if !target.up {
			n.carry(target.index, from.index, func() { finish(answer{err: errNoResponders}) })
			return
		}
		boot := target.boot
		target.receive(incoming{request: request, arrived: target.arrival(), reply: func(response any, err error) {
			n.carry(target.index, from.index, func() {
				if !answered && from.life == life {
					w.trace.add(w.now, "hears from", from.index, target.index, boot, 0, response)
				}
				finish(answer{response: response, boot: boot, err: err})
			})
		}})
	})
}

// find returns the process under exactly that name and incarnation.
func (n *network) find(to raft.Peer) *process {
	for _, p := range n.w.processes {
		if p.self == to {
			return p
		}
	}
	return nil
}

// named returns the process under a name, with whatever directory.
func (n *network) named(id raft.NodeID) *process {
	for _, p := range n.w.processes {
		if p.self.ID == id {
			return p
		}
	}
	return nil
}

// carry brings something from one node to another: later, perhaps never, perhaps twice.
func (n *network) carry(from, to int, deliver func()) {
	w := n.w
	if n.cut[from][to] || (!w.healed && w.chance(w.plan.loss)) {
		return
	}
	copies := 1
	if !w.healed && w.chance(w.plan.duplicate) {
		copies = 2
	}
	for range copies {
		w.after(n.latency(from, to), func() {
			if !n.cut[from][to] {
				deliver()
			}
		})
	}
}

func (n *network) latency(from, to int) time.Duration {
	w := n.w
	if n.slow[from][to] || w.now < n.chaos && w.chance(0.5) {
		return w.between(0, w.plan.engine.ElectionTimeout)
	}
	if !w.healed && w.chance(w.plan.late) { // when the sender has given up long ago
		return w.between(0, 5*w.plan.engine.ElectionTimeout)
	}
	if !w.healed && w.chance(w.plan.slow) {
		return w.between(0, w.plan.slowDelay)
	}
	return w.between(w.plan.delay/2, w.plan.delay*3/2)
}

// set marks the links between a group of nodes and all others, those out of the group, into it, or both.
func (n *network) set(links [][]bool, group []bool, out, in, value bool) {
	for i := range links {
		for j := range links {
			if group[i] && !group[j] {
				if out {
					links[i][j] = value
				}
				if in {
					links[j][i] = value
				}
			}
		}
	}
}
