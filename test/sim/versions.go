package sim

import (
	"math/rand/v2"

	"quorate/node/raft"
)

// versionPlan is what a run has of a rolling upgrade: nodes speak different versions, and may speak newer ones after a restart, never older ones.
type versionPlan struct {
	on bool
	// upgrades is how often a restart is one.
	upgrades float64
	// oldest are what each node begins with.
	oldest []raft.Versions
}

// newestVersions are what nodes speak in the end.
var newestVersions = raft.Versions{Protocol: 3, Command: 2}

func (p *plan) addVersions(rng *rand.Rand) {
	p.versions = versionPlan{on: rng.IntN(2) == 0, upgrades: pick(rng, 0.1, 0.5, 1)}
	for range p.nodes {
		p.versions.oldest = append(p.versions.oldest, raft.Versions{
			Protocol: rng.Uint32N(newestVersions.Protocol + 1), Command: rng.Uint32N(newestVersions.Command + 1),
		})
	}
}

// upgrade is done, now and then, between a node's lives.
func (p *process) upgrade() {
	if !p.w.plan.versions.on || !p.w.chance(p.w.plan.versions.upgrades) {
		return
	}
	if p.speaks.Protocol < newestVersions.Protocol && p.w.chance(0.7) {
		p.speaks.Protocol++
	}
	if p.speaks.Command < newestVersions.Command && p.w.chance(0.7) {
		p.speaks.Command++
	}
}

// halt is what becomes of a node that was out of the cluster while the others were upgraded: it stops, and its operator upgrades it.
func (p *process) halt(why string) {
	w := p.w
	w.trace.add(w.now, "HALTS", p.index, -1, 0, 0, why)
	w.happened(nodeHalted)
	if p.speaks == newestVersions {
		w.fail("versions: n%d halts although it speaks the newest: %s", p.index+1, why)
	}
	p.speaks = newestVersions
	w.crashFor(p, w.between(0, w.plan.engine.ElectionTimeout))
}

// raises checks the settings that a leader appends: each member of its configuration speaks what they say, and they lower nothing.
func (o *oracle) raises(p *process, before past, entries []raft.Entry) {
	membership, was := before.membership, before.setting.Setting.Versions
	for _, entry := range entries {
		if entry.Kind == raft.EntryMembership {
			membership = entry.Membership
		}
		if entry.Kind != raft.EntrySetting || entry.Setting.Versions == was {
			continue
		}
		is := entry.Setting.Versions
		o.w.happened(versionsRaised)
		if !was.Within(is) {
			o.w.fail("versions: n%d lowers them from %v to %v", p.index+1, was, is)
		}
		raised := is // but for what was in use before, which who has come since may not speak, and learns by halting
		if raised.Protocol == was.Protocol {
			raised.Protocol = 0
		}
		if raised.Command == was.Command {
			raised.Command = 0
		}
		was = is
		for _, q := range o.w.processes {
			if membership.Contains(q.self) && !raised.Within(q.speaks) {
				o.w.fail("versions: n%d raises them to %v, but n%d, of %v, speaks %v", p.index+1, is, q.index+1, membership, q.speaks)
			}
		}
	}
}

// checkVersions checks, when nothing has happened for a while, that the leader has raised the versions as far as all members speak them.
func (o *oracle) checkVersions(leader *process) {
	if !o.w.plan.versions.on {
		return
	}
	common := leader.speaks
	targets := leader.engine.Targets()
	for _, t := range targets {
		if t.Suspect || !t.Answered {
			return // it is to be replaced first
		}
		common = raft.Versions{Protocol: min(common.Protocol, t.Versions.Protocol), Command: min(common.Command, t.Versions.Command)}
	}
	if got := leader.engine.SettingAt(); !common.Within(got.Setting.Versions) {
		o.w.fail("versions: %v are in use at the end, but all members of %v speak %v", got.Setting.Versions, leader.engine.Membership(), common)
	}
}
