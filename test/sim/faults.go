package sim

import (
	"fmt"
	"time"
)

// faultKind is one way in which the world treats the cluster badly.
type faultKind int

const (
	crashNode faultKind = iota
	crashMany
	freezeNode
	busyCore
	stallDisk
	partition
	cutOut
	cutIn
	hide
	slowLinks
	depose
	contest
	loseDisk
	sleepNode
	usurp
	faultKinds
)

func (k faultKind) String() string {
	return [...]string{"crash", "crash many", "freeze", "busy core", "stall disk", "partition", "cut out", "cut in", "hide", "slow links", "depose", "contest", "lose disk", "sleep", "usurp"}[k]
}

// contestTime is how many election timeouts a contested election gets until the network is itself again.
const contestTime = 3

// scheduleFault plans the next fault. They overlap.
func (w *world) scheduleFault() {
	w.after(w.between(0, 2*w.plan.faultGap), func() {
		if w.healed {
			return
		}
		w.fault(w.drawFault())
		w.scheduleFault()
	})
}

func (w *world) drawFault() faultKind {
	sum := 0
	for _, weight := range w.plan.weights {
		sum += weight
	}
	n := w.rng.IntN(sum)
	for kind, weight := range w.plan.weights {
		if n < weight {
			return faultKind(kind)
		}
		n -= weight
	}
	return crashNode
}

func (w *world) fault(kind faultKind) {
	victim := w.processes[w.rng.IntN(len(w.processes))]
	if leader := w.leader(); leader != nil && w.chance(0.4) {
		victim = leader
	}
	timeout := w.plan.engine.ElectionTimeout
	length := w.between(timeout/20, 3*timeout)
	if w.chance(0.5) {
		length = w.between(0, timeout/2)
	}
	w.trace.add(w.now, "FAULT", victim.index, -1, uint64(kind), uint64(length), kind.String()+" for "+length.String())
	w.coverage.faults[kind]++
	switch kind {
	case crashNode:
		w.crashFor(victim, length)
	case crashMany:
		for _, p := range w.processes {
			if p == victim || w.chance(0.6) {
				w.crashFor(p, length)
			}
		}
	case loseDisk:
		if !w.wipe(victim) {
			w.coverage.faults[kind]--
		}
	case freezeNode:
		victim.frozen = max(victim.frozen, w.now+length)
	case sleepNode:
		w.sleep(victim, length)
	case usurp:
		w.usurp()
	case busyCore:
		victim.busy = max(victim.busy, w.now+length)
	case stallDisk:
		victim.disk.stalled = max(victim.disk.stalled, w.now+length)
	case partition:
		w.cut(w.group(victim, 0.4), w.net.cut, true, true, length)
	case cutOut:
		w.cut(w.group(victim, 0.1), w.net.cut, true, false, length)
	case cutIn:
		w.cut(w.group(victim, 0.1), w.net.cut, false, true, length)
	case hide:
		w.cut(w.group(victim, 0.2), w.net.hidden, w.chance(0.7), true, length)
	case slowLinks:
		w.cut(w.group(victim, 0.2), w.net.slow, w.chance(0.7), true, length)
	case contest:
		// An election in which half of what is said comes too late: candidates give up, try again, and hear old answers.
		w.crashFor(victim, length)
		w.net.chaos = w.now + contestTime*timeout
	case depose:
		// The others take it for gone and elect, while it still believes that it leads, and hears late what they said before.
		group := w.group(victim, 0)
		w.cut(group, w.net.slow, false, true, length)
		w.after(2*w.plan.engine.HeartbeatInterval, func() {
			if !w.healed {
				w.cut(group, w.net.hidden, false, true, length)
				w.cut(group, w.net.cut, true, false, length)
			}
		})
	}
}

func (w *world) crashFor(p *process, length time.Duration) {
	if !p.up {
		return
	}
	p.crash()
	w.after(length, func() {
		if !p.up {
			p.start()
		}
	})
}

// group is the victim and some others.
func (w *world) group(victim *process, others float64) []bool {
	group := make([]bool, len(w.processes))
	for i, p := range w.processes {
		group[i] = p == victim || w.chance(others)
	}
	return group
}

func (w *world) cut(group []bool, links [][]bool, out, in bool, length time.Duration) {
	w.net.set(links, group, out, in, true)
	w.after(length, func() { w.net.set(links, group, out, in, false) })
}

// patience is how long a healed cluster may take to elect a leader, commit a write and bring every member to it: what is
// under way must time out and an election may split, which is a matter of election timeouts; a log that lags may have to go
// over in single entries, one after the other, and so may what clients write meanwhile.
func (w *world) patience() time.Duration {
	lag, first := uint64(0), ^uint64(0)
	for _, p := range w.processes {
		lag = max(lag, uint64(len(p.disk.visible.entries)))
		first = min(first, p.disk.flushed.Index)
	}
	entry := 4*w.plan.delay + 2*w.plan.syncTime + time.Millisecond
	timeouts := 20 + 10*time.Duration(w.wipes) // two changes for each
	if w.plan.lease.on {
		timeouts *= 2 // promises come before each election
	}
	return timeouts*w.plan.engine.ElectionTimeout + time.Duration(lag-min(lag, first)+mostUncommitted)*entry
}

// heal ends all faults and asks the cluster to show that it lives.
func (w *world) heal() {
	w.healed = true
	w.trace.add(w.now, "HEAL", -1, -1, 0, 0, nil)

	for _, p := range w.processes {
		p.frozen, p.busy, p.disk.stalled = 0, 0, 0
		if !p.up {
			p.start()
		}
		p.wake()
	}
	for i := range w.net.cut {
		clear(w.net.cut[i])
		clear(w.net.hidden[i])
		clear(w.net.slow[i])
	}
	w.net.chaos = 0
	w.after(w.patience(), func() {
		if !w.calm.begun {
			w.fail("liveness: %s", w.whyNotAlive())
		}
	})
	w.clients.final = w.clients.last + 1
	w.prove()
}

// prove waits until a write is acknowledged that began after the healing, every member has applied it, no change is left half done, and
// who has lost its disk is a member again. Then it is calm.
func (w *world) prove() {
	alive := w.clients.goal > 0 && !w.replaceWiped() && !w.oracle.membership.Joint()
	for _, p := range w.processes {
		if p.applied.Index < w.clients.goal && w.member(p) {
			alive = false
		}
	}
	if alive {
		w.beginCalm()
		return
	}
	if p := w.leader(); p != nil && w.clients.goal == 0 { // chance alone might never write
		p.ask(operation{entry: w.clients.write()})
	}
	w.after(w.plan.engine.HeartbeatInterval, w.prove)
}

// member reports whether the process is in the newest committed configuration: others need not catch up.
func (w *world) member(p *process) bool {
	return w.oracle.membership.Contains(p.self)
}

func (w *world) whyNotAlive() string {
	s := "after all faults were healed, "
	for _, p := range w.processes {
		s += fmt.Sprintf("\n%s: %v, %v, log up to %v, commit %d, follows %v, %v",
			p.self.ID, p.engine.Role(), p.engine.Vote(), p.engine.LastLogID(), p.engine.Commit(), p.engine.Leader().ID, p.engine.Membership())
	}
	s += "\n"
	leader := w.leader()
	switch {
	case leader == nil:
		return s + "nobody leads"
	case w.clients.goal == 0:
		return s + string(leader.self.ID) + " leads, but writes are not acknowledged"
	}
	if w.oracle.membership.Joint() {
		s += "the change to " + w.oracle.membership.String() + " is not ended; "
	}
	if _, needed := w.replace(w.oracle.membership); needed {
		s += "who has lost its disk is not in " + w.oracle.membership.String() + " again; "
	}
	for _, p := range w.processes {
		if p.applied.Index < w.clients.goal && w.member(p) {
			s += string(p.self.ID) + " stays at " + p.applied.String() + " "
		}
	}
	return s
}
