package sim

import (
	"fmt"
	"time"

	"quorate/node/raft"
)

// wipe takes a node's disk away. It comes back under its name from a fresh directory, with another incarnation: it neither votes nor
// counts until the name has been taken out of the configuration and is added again (rule 10).
//
// The old disk stays with the oracle. A quorum is counted as if its node were down for ever, which is what it must be to all others.
// It returns false if the cluster cannot spare the disk.
func (w *world) wipe(p *process) bool {
	if !p.up || !w.spares(p.self) {
		return false
	}
	p.crash()
	if w.plan.versions.on {
		p.speaks = newestVersions // whatever is decided while it is out
	}
	w.wiped[p.self] = p.disk
	w.wipes++
	p.self.Incarnation += firstReplacement
	p.disk = &disk{w: w, node: p.index}
	w.trace.add(w.now, "LOSES ITS DISK", p.index, -1, uint64(p.self.Incarnation), 0, nil)
	w.after(w.between(0, w.plan.engine.ElectionTimeout), func() {
		if !p.up {
			p.start()
		}
	})
	return true
}

// firstReplacement is more than any incarnation of a first disk, and what each next one of a node is greater by.
const firstReplacement = 100

// spares reports whether a cluster can lose one more disk and be available again: a majority of each set of voters must have theirs,
// in every configuration that may still come into force.
func (w *world) spares(victim raft.Peer) bool {
	return w.majorityWithout(w.oracle.membership, victim) &&
		!w.inLogs(func(m *raft.Membership) bool { return !w.majorityWithout(m, victim) })
}

// inLogs reports whether yes holds for a configuration that is in a log, not committed, and may still come into force.
func (w *world) inLogs(yes func(*raft.Membership) bool) bool {
	for _, p := range w.processes {
		for _, entry := range p.disk.visible.entries {
			if entry.Kind == raft.EntryMembership && entry.ID.Index > w.oracle.membershipIndex && yes(entry.Membership) {
				return true
			}
		}
	}
	return false
}

func (w *world) majorityWithout(m *raft.Membership, victim raft.Peer) bool {
	return m.HasQuorum(func(member raft.Member) bool {
		return member.Peer != victim && w.wiped[member.Peer] == nil
	})
}

// diskOf is the disk of exactly that peer, perhaps one that its node has lost.
func (w *world) diskOf(to raft.Peer) *disk {
	if old := w.wiped[to]; old != nil {
		return old
	}
	return w.net.find(to).disk
}

// replace is a change that takes the names out that have lost their disks, or, once they are out, adds them with their new ones.
func (w *world) replace(current *raft.Membership) (change raft.Change, needed bool) {
	for _, member := range current.Members {
		switch {
		case w.wiped[member.Peer] != nil:
			needed = true
		case member.Voter:
			change.Voters = append(change.Voters, member.Peer)
		default:
			change.Learners = append(change.Learners, member.Peer)
		}
	}
	for _, p := range w.processes {
		if _, named := current.Find(p.self.ID); p.self != peer(p.index) && !named {
			change.Voters, needed = append(change.Voters, p.self), true
		}
	}
	return change, needed
}

// replaceWiped goes on to replace those who have lost their disks, as an operator does, and reports whether there is still one.
func (w *world) replaceWiped() bool {
	_, needed := w.replace(w.oracle.membership)
	if p := w.leader(); needed && p != nil {
		p.ask(operation{do: func(e *raft.Engine, now time.Time) {
			change, _ := w.replace(e.Membership())
			change.Force = true
			_, _ = e.ChangeMembership(now, change) // again and again, until it is done
		}})
	}
	return needed
}

// namesWiped reports whether a change names a directory that has been lost since it was thought of: no operator knows of it then.
func (w *world) namesWiped(change raft.Change) bool {
	for _, peers := range [][]raft.Peer{change.Voters, change.Learners} {
		for _, p := range peers {
			if w.wiped[p] != nil {
				return true
			}
		}
	}
	return false
}

// checkWiped checks that a node never leads under a name with a directory that no configuration of its own gives a vote.
func (o *oracle) checkWiped(p *process) {
	if p.self == peer(p.index) { // it has its first disk
		return
	}
	for _, entry := range p.disk.visible.entries {
		if entry.Kind == raft.EntryMembership && entry.Membership.IsVoter(p.self) {
			return
		}
	}
	o.w.fail("lost disks (rule 10): n%d leads with directory %v, which was given no vote", p.index+1, fmt.Sprint(p.self.Incarnation))
}
