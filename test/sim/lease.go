package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"quorate/node/raft"
)

// leasePlan is what a run has of leases (rule 5): clients choose them and instant failover by turns, and the nodes' clocks run at different
// paces, within what a lease allows for.
type leasePlan struct {
	on bool
	// first is the lease that is chosen in the beginning; choices those that clients may choose later, with that probability.
	first   time.Duration
	choices []time.Duration
	changes float64
	// drift of each node's clock, in thousandths: the fastest is less than a ninth faster than the slowest.
	drift []int
}

func (p leasePlan) String() string {
	if !p.on {
		return "no leases"
	}
	return fmt.Sprintf("lease of %v, changed with %.3f, clocks %v", p.first, p.changes, p.drift)
}

const mostDrift = 50

func (p *plan) addLeases(rng *rand.Rand) {
	timeout := p.engine.ElectionTimeout
	p.lease = leasePlan{
		on:      rng.IntN(2) == 0,
		first:   pick(rng, timeout/2, timeout, 2*timeout),
		choices: []time.Duration{0, timeout / 2, timeout, 2 * timeout},
		changes: pick(rng, 0, 0.002, 0.02),
	}
	if !p.lease.on {
		return
	}
	for range p.nodes {
		p.lease.drift = append(p.lease.drift, pick(rng, -mostDrift, mostDrift, 0, rng.IntN(2*mostDrift)-mostDrift))
	}
	p.weights[sleepNode], p.weights[usurp] = pick(rng, 0, 1, 2), pick(rng, 1, 3)
	p.faultTime *= 2 // elections take longer
}

// chooseLeases has an operator ask for the plan's first lease until it is committed.
func (w *world) chooseLeases() {
	if !w.plan.lease.on || w.oracle.leases > 0 || w.healed {
		return
	}
	if p := w.leader(); p != nil {
		p.chooseLease(w.plan.lease.first)
	}
	w.after(w.between(0, w.plan.engine.ElectionTimeout), w.chooseLeases)
}

func (p *process) chooseLease(d time.Duration) {
	p.ask(operation{do: func(e *raft.Engine, now time.Time) { _, _ = e.ChangeSetting(now, raft.Setting{Lease: d}) }})
}

// leases is one operation that has to do with leases, if chance wants it: all who believe to lead are read from, since it is the stale ones
// that matter.
func (c *clients) leases(p *process) bool {
	w := c.w
	switch {
	case !w.healed && w.chance(w.plan.lease.changes):
		p.chooseLease(pick(w.rng, w.plan.lease.choices...))
	case w.chance(0.5):
		for _, q := range w.processes {
			if q.up && q.engine.Role() == raft.Leader {
				q.leaseRead(readOp{floor: w.oracle.acked})
			}
		}
	default:
		return false
	}
	return true
}

// settingsTo are the settings in the log up to an entry as an engine wants them: the newest that is applied, or zero, then later ones.
func (p *process) settingsTo(id raft.LogID) []raft.SettingAt {
	settings := make([]raft.SettingAt, 1)
	for _, entry := range p.disk.visible.entries[:id.Index] {
		if entry.Kind != raft.EntrySetting {
			continue
		}
		if entry.ID.Index <= p.applied.Index {
			settings = settings[:0]
		}
		settings = append(settings, raft.SettingAt{ID: entry.ID, Setting: *entry.Setting})
	}
	return settings
}

// clock is a node's own: at its own pace, and it stands still while the machine sleeps.
type clock struct {
	// missed is for how long it stood still, asleep that the core does not know of it yet.
	missed time.Duration
	asleep bool
}

// wall is the node's time by a clock that knows of sleep.
func (p *process) wall() time.Time { return epoch.Add(p.pace(p.w.now)) }

// time is the node's time, or when its process goes on.
func (p *process) time() time.Time {
	return epoch.Add(p.pace(max(p.w.now, p.frozen)) - p.missed)
}

func (p *process) pace(d time.Duration) time.Duration {
	if p.w.plan.lease.drift == nil {
		return d
	}
	return d + d*time.Duration(p.w.plan.lease.drift[p.index])/1000
}

// until is how long it takes until the node's clock says t.
func (p *process) until(t time.Time) time.Duration {
	d := t.Sub(epoch) + p.missed
	if p.w.plan.lease.drift == nil {
		return d - p.w.now
	}
	at := d * 1000 / time.Duration(1000+p.w.plan.lease.drift[p.index])
	for p.pace(at) < d {
		at++
	}
	return at - p.w.now
}

// sleep stops a whole machine, its clock included.
func (w *world) sleep(p *process, length time.Duration) {
	if p.frozen > w.now {
		return
	}
	p.missed += p.pace(w.now+length) - p.pace(w.now)
	p.frozen, p.asleep = w.now+length, true
}

// usurp makes it as tempting as it can be to elect while a leader has its lease: some hear nothing of that leader for so long that they owe it
// nothing any more; then it stands still, or cannot be heard by the others either, who have promised a moment ago, and some of whom restart.
func (w *world) usurp() {
	leader := w.leader()
	if leader == nil {
		return
	}
	timeout := w.plan.engine.ElectionTimeout
	deaf := w.group(leader, 0)
	for i := range deaf {
		deaf[i] = i != leader.index && w.chance(0.4)
	}
	w.cutBetween(leader, deaf, 6*timeout)
	w.after(w.between(timeout, 3*timeout), func() {
		if w.healed {
			return
		}
		if w.chance(0.5) {
			w.cut(w.group(leader, 0), w.net.cut, true, true, 4*timeout)
		}
		w.after(w.between(0, timeout), func() {
			if w.healed {
				return
			}
			length := w.now + w.between(timeout, 3*timeout)
			if w.chance(0.5) {
				leader.busy = max(leader.busy, length)
			} else {
				leader.frozen = max(leader.frozen, length)
			}
			for _, p := range w.processes {
				if p != leader && w.chance(0.3) {
					w.crashFor(p, w.between(0, timeout/4))
				}
			}
		})
	})
}

// cutBetween cuts the links between one node and each of a group, both ways.
func (w *world) cutBetween(p *process, group []bool, length time.Duration) {
	set := func(cut bool) {
		for i := range group {
			if group[i] {
				w.net.cut[p.index][i], w.net.cut[i][p.index] = cut, cut
			}
		}
	}
	set(true)
	w.after(length, func() { set(false) })
}

// lease is what the core gives to those who read beside it, by both clocks.
type lease struct {
	*raft.Leased
	wall raft.Leased
	term uint64
}

func (p *process) publishLease() {
	p.lease = lease{Leased: p.engine.Leased(), term: p.engine.Vote().Term}
	if l := p.lease.Leased; l != nil {
		p.lease.wall = raft.Leased{Until: p.wall().Add(l.Until.Sub(p.time())), Index: l.Index}
		if newest := p.w.oracle.newest; newest > p.lease.term {
			p.w.fail("leases (6.4.1): n%d has a lease in term %d, but n%d led in term %d before", p.index+1, p.lease.term, p.w.oracle.leaders[newest]+1, newest)
		}
	}
}

func (p *process) covers(l lease, applied uint64) bool {
	return l.Leased.Covers(p.time(), applied) && l.wall.Covers(p.wall(), applied)
}

// leaseRead is a read by a user's goroutine beside the core, as TryReadLease of package node does it: it takes the lease, looks at the clock, and
// reads, and may be held up before each. Without a lease the core decides.
func (p *process) leaseRead(op readOp) {
	w := p.w
	op.leased = true
	life := p.life
	later := func(do func()) {
		hold := w.between(0, 50*time.Microsecond)
		if !w.healed && w.chance(0.1) {
			hold = w.between(0, 2*w.plan.engine.ElectionTimeout)
		}
		p.user(life, hold, do)
	}
	later(func() {
		l := p.lease
		later(func() {
			if !p.covers(l, p.applied.Index) {
				p.ask(operation{read: &op})
				return
			}
			op.index = p.applied.Index
			w.oracle.readLeased(p, op)
			later(func() {
				p.answerRead(op)
			})
		})
	})
}

// user lets a goroutine of the process go on after a time, when the process is not frozen.
func (p *process) user(life int, d time.Duration, do func()) {
	p.w.after(d, func() {
		switch {
		case p.life != life:
		case p.w.now < p.frozen:
			p.user(life, p.frozen-p.w.now, do)
		default:
			do()
		}
	})
}

// readLeased is a read that the core decides by its lease, if it has one.
func (p *process) readLeased(op readOp) bool {
	if _, ok := p.engine.Lease(); !ok {
		return false
	}
	op.index = p.engine.Commit()
	p.w.oracle.readLeased(p, op)
	p.answerAt(op)
	return true
}

func (o *oracle) readLeased(p *process, op readOp) {
	o.w.trace.add(o.w.now, "READS UNDER ITS LEASE", p.index, -1, op.index, op.floor, nil)
	o.w.clients.answered++
	o.w.clients.leased++
	o.read(p, op)
}

// checkLeases checks that nobody comes to lead while an earlier leader has a lease, by that one's own clocks.
func (o *oracle) checkLeases(p *process, term uint64) {
	for _, q := range o.w.processes {
		if q != p && q.up && q.lease.term < term && q.covers(q.lease, ^uint64(0)) {
			o.w.fail("leases (6.4.1): n%d leads in term %d, but n%d has a lease in term %d", p.index+1, term, q.index+1, q.lease.term)
		}
	}
}

// checkSetting checks that a node knows the newest setting of its log, also where that is purged or came by a snapshot.
func (o *oracle) checkSetting(p *process) {
	want := p.settingsTo(p.disk.visible.last())
	if got := p.engine.SettingAt(); got != want[len(want)-1] {
		o.w.fail("n%d has setting %+v, its log %+v", p.index+1, got, want[len(want)-1])
	} else if !got.Setting.Versions.Within(p.speaks) {
		o.w.fail("versions: n%d has %v in its log, and speaks %v", p.index+1, got.Setting.Versions, p.speaks)
	}
}
