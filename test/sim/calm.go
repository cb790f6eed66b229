package sim

import (
	"time"

	"quorate/node/raft"
)

// calm is the end of a run. The cluster has shown that it lives; now nobody asks anything of it, and at most one node that does not lead is
// troubled. Nothing may come of that: the leader stays, and no term rises, whatever those do who are cut off, come back, or were removed.
type calm struct {
	begun  bool
	leader *process
	term   uint64
	// terms of all nodes when the trouble began.
	terms []uint64
}

// Times of the calm, in election timeouts.
const (
	settleTime  = 3 // what is under way comes to its end
	mostTrouble = 3
	afterTime   = 2
)

func (w *world) beginCalm() {
	w.calm.begun = true
	w.trace.add(w.now, "CALM", -1, -1, 0, 0, nil)
	settle := settleTime * w.plan.engine.ElectionTimeout
	if w.plan.lease.on {
		settle *= 2 // a leader that has just been left out is missed until what was promised to it is over
	}
	w.after(settle, w.trouble)
}

// trouble troubles one node that the quorum can do without.
func (w *world) trouble() {
	c := &w.calm
	for _, p := range w.processes {
		c.terms = append(c.terms, p.engine.Vote().Term)
		if p.engine.Role() == raft.Leader {
			if c.leader != nil {
				w.fail("calm: n%d and n%d both lead, although nothing happens", c.leader.index+1, p.index+1)
				return
			}
			c.leader, c.term = p, p.engine.Vote().Term
		}
	}
	if c.leader == nil {
		w.fail("calm: nobody leads, although nothing happens")
		return
	}
	timeout := w.plan.engine.ElectionTimeout
	length := w.between(timeout, mostTrouble*timeout)
	w.after(length+afterTime*timeout, w.endCalm)
	victim := w.dispensable()
	if victim == nil {
		w.happened(calmUntouched)
		return
	}
	switch w.rng.IntN(4) {
	case 0:
		w.happened(calmUntouched)
	case 1:
		w.happened(calmLinkCut)
		w.cutLink(victim, c.leader, length)
	case 2:
		w.happened(calmIsolation)
		w.cut(w.group(victim, 0), w.net.cut, true, true, length)
	case 3:
		w.happened(calmRestart)
		w.crashFor(victim, length)
	}
	w.trace.add(w.now, "TROUBLE", victim.index, c.leader.index, uint64(length), 0, nil)
}

// dispensable draws a node that does not lead and without which there is a quorum, or nil.
func (w *world) dispensable() *process {
	var able []*process
	for _, p := range w.processes {
		if p != w.calm.leader && majorities(w.oracle.membership, func(m raft.Member) bool { return m.Peer != p.self }) {
			able = append(able, p)
		}
	}
	if len(able) == 0 {
		return nil
	}
	return able[w.rng.IntN(len(able))]
}

// cutLink cuts what is between two nodes, and nothing else: others hear both.
func (w *world) cutLink(a, b *process, length time.Duration) {
	set := func(cut bool) { w.net.cut[a.index][b.index], w.net.cut[b.index][a.index] = cut, cut }
	set(true)
	w.after(length, func() { set(false) })
}

func (w *world) endCalm() {
	c := &w.calm
	if !c.leader.leads(c.term) {
		w.fail("calm: n%d does not lead any more in term %d, although nothing happened to it", c.leader.index+1, c.term)
		return
	}
	for i, p := range w.processes {
		if term := p.engine.Vote().Term; term > max(c.terms[i], c.term) {
			w.fail("calm: n%d has gone from term %d to term %d, although nothing happened", i+1, c.terms[i], term)
		}
	}
	w.oracle.checkVersions(c.leader)
	w.clients.done = true
}
