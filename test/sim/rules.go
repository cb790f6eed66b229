package sim

import "quorate/node/raft"

// What the design promises beyond the properties of the paper's figure 3. Each node keeps these rules by itself; what breaks one of them does
// harm only when more goes wrong at the same time.

// inForce checks that the configuration in force is the newest in the log, committed or not (6), also after a restart, a truncation
// and an installation.
func (o *oracle) inForce(p *process) {
	have, want := p.engine.MembershipAt(), p.membershipAt(p.engine.LastLogID())
	if have.ID != want.ID || !have.Membership.Equal(want.Membership) {
		o.w.fail("configuration (6): in force at n%d is %v of entry %v, but the newest in its log is %v of entry %v",
			p.index+1, have.Membership, have.ID, want.Membership, want.ID)
	}
}

// elected checks that who leads has a vote, and was given those of a majority of each set of voters, in that term (5.2).
func (o *oracle) elected(p *process, term uint64, before past) {
	if !p.hasAVote(before.commit) && !o.w.mayGetAVote(p.self) {
		o.w.fail("voters lead (6): n%d leads in term %d, but no configuration that may be in force gives it a vote", p.index+1, term)
	}
	gave := func(m raft.Member) bool {
		return m.Peer == p.self || o.votes[ballot{voter: m.Peer, term: term}] == p.self.ID
	}
	if !majorities(before.membership, gave) && !majorities(p.engine.Membership(), gave) {
		o.w.fail("majority of votes (5.2): n%d leads in term %d without the votes of a quorum of %v", p.index+1, term, before.membership)
	}
}

// hasAVote reports whether a node votes in the newest committed configuration that it knows of, or in a later one.
func (p *process) hasAVote(commit uint64) bool {
	for at := p.membershipAt(p.engine.LastLogID()); ; at = p.membershipAt(raft.LogID{Index: at.ID.Index - 1}) {
		if at.Membership.IsVoter(p.self) {
			return true
		}
		if at.ID.Index <= commit {
			return false
		}
	}
}

// mayGetAVote reports whether somebody has a configuration in its log, not committed but perhaps in force later, in which the peer votes.
func (w *world) mayGetAVote(self raft.Peer) bool {
	return w.inLogs(func(m *raft.Membership) bool { return m.IsVoter(self) })
}

// majorities counts by hand whether those for whom yes holds are more than half of each set of voters.
func majorities(m *raft.Membership, yes func(raft.Member) bool) bool {
	var voters, outgoing, have, outgoingHave int
	for _, member := range m.Members {
		has := yes(member)
		if member.Voter {
			voters++
			if has {
				have++
			}
		}
		if member.Outgoing {
			outgoing++
			if has {
				outgoingHave++
			}
		}
	}
	return 2*have > voters && (outgoing == 0 || 2*outgoingHave > outgoing)
}

// oneChange checks what a leader adds to its log: a configuration comes after the one before it is committed, and voters change by way of
// a joint configuration only (6).
func (o *oracle) oneChange(p *process, write *raft.Write) {
	if p.engine.Role() != raft.Leader {
		return
	}
	for _, entry := range write.Append {
		if entry.Kind != raft.EntryMembership || entry.ID.Term != p.engine.Vote().Term {
			continue
		}
		last := p.membershipAt(raft.LogID{Index: entry.ID.Index - 1})
		if last.ID.Index > p.engine.Commit() {
			o.w.fail("one change at a time (6): n%d appends %v, but entry %v is not committed", p.index+1, entry.Membership, last.ID)
		}
		for _, member := range entry.Membership.Members {
			old, _ := last.Membership.Find(member.ID)
			if member.Voter && !old.Voter && !entry.Membership.Joint() || old.Outgoing && !old.Voter && member.Voter {
				o.w.fail("joint consensus (6): n%d appends %v after %v", p.index+1, entry.Membership, last.Membership)
			}
		}
	}
}

// configured is called when a configuration is committed for the first time.
func (o *oracle) configured(p *process, entry raft.Entry, before past) {
	w, m := o.w, entry.Membership
	switch {
	case m.Joint():
		w.happened(jointCommitted)
	case o.membership.Joint() && o.membershipIndex > 0 && o.committed[o.membershipIndex-1].id.Term != entry.ID.Term:
		w.happened(jointEndedByAnother)
	}
	if before.role == raft.Leader && !m.IsVoter(p.self) {
		w.happened(leaderLeftOut)
	}
	for _, member := range m.Members {
		old, known := o.membership.Find(member.ID)
		switch {
		case known && old.Learner() && member.Voter:
			w.happened(learnerPromoted)
		case member.Incarnation > firstReplacement && old.Peer != member.Peer:
			w.happened(diskReplaced)
		}
	}
}

// stands checks that who stands because its leader wants it was told so, by the leader of the term before.
func (o *oracle) stands(p *process, request raft.VoteRequest) {
	if !request.Transfer {
		return
	}
	if !o.told[ballot{voter: p.self, term: request.Term - 1}] {
		o.w.fail("transfer: n%d stands in term %d for a leader's sake, but no leader of term %d told it to", p.index+1, request.Term, request.Term-1)
	}
	o.handed[request.Term] = true
}

// handsOver checks that a leader gives a transfer up that comes to nothing.
func (o *oracle) handsOver(p *process, before past) {
	timing := o.w.plan.engine
	switch {
	case !p.engine.Transferring():
		if before.handing && p.leads(before.term) {
			o.w.happened(transferGivenUp)
		}
	case o.w.plan.lease.on: // its clock has a pace of its own, and it may have slept
	case o.w.now-p.transferring > timing.ElectionTimeout+timing.HeartbeatInterval:
		o.w.fail("transfer: n%d hands over since %v and does not give up", p.index+1, p.transferring)
	}
}

// mayGoOnLeading checks that nobody stays leader for long by heartbeats alone: without answers of a quorum, or with a disk that
// stands still (rule 3).
func (o *oracle) mayGoOnLeading(p *process) {
	if o.w.plan.lease.on {
		return // clocks have paces of their own and machines sleep: what a timeout is differs; the seeds without leases check this
	}
	now, timeout := o.w.now, o.w.plan.engine.ElectionTimeout
	if still := now - p.disk.moved; len(p.disk.pending) > 0 && still > timeout+o.w.plan.engine.HeartbeatInterval {
		o.w.fail("stalled disk (rule 3): n%d leads although nothing has become durable for %v", p.index+1, still)
	}
	at, _ := p.engine.QuorumAck()
	switch {
	case p.time().Sub(at) <= timeout:
		p.alone = 0
	case p.alone == 0:
		p.alone = now
	case now-p.alone > timeout/2: // a change of members may have made a quorum of those who were silent, just now
		o.w.fail("check-quorum (rule 3): n%d leads although no quorum has answered since %v ago", p.index+1, p.time().Sub(at))
	}
}

// undoes notes what a write takes away.
func (o *oracle) undoes(p *process, write *raft.Write) {
	if write == nil || write.TruncateFrom == 0 || write.TruncateFrom > uint64(len(p.disk.visible.entries)) {
		return
	}
	o.w.happened(logTruncated)
	for _, entry := range p.disk.visible.entries[write.TruncateFrom-1:] {
		if entry.Kind == raft.EntryMembership {
			o.w.happened(configurationUndone)
		}
	}
}

// keepsForInstallers checks that a leader does not purge what a target will need after the snapshot that it installs (rule 8).
func (o *oracle) keepsForInstallers(p *process, to raft.LogID) {
	for _, t := range p.engine.Targets() {
		lately := p.time().Sub(t.Acked) <= o.w.plan.engine.ElectionTimeout
		if t.Installing.Index > 0 && to.Index > t.Installing.Index && lately && !t.Suspect {
			o.w.fail("purge (rule 8): n%d purges up to %v, but %s is installing %v and needs what follows", p.index+1, to, t.Peer.ID, t.Installing)
		}
	}
}

// back is how a leader was led back along the log of a follower that disagrees.
type back struct {
	term uint64
	// lowest is the previous index of the newest step.
	lowest uint64
	steps  int
	// terms is how many the two logs had at the first step.
	terms int
}

// disagrees checks that two logs are brought to agree in as many rounds as they have terms, not entries (5.3). A gap in what came is
// no disagreement, nor is what overtook others on the way once the leader knows where the logs agree.
func (o *oracle) disagrees(p *process, request *raft.AppendRequest) {
	b, visible, prev := &p.back, &p.disk.visible, request.Prev
	if prev.Index > visible.last().Index || visible.has(prev) || o.agreed[ballot{voter: p.self, term: request.Term}] {
		return
	}
	switch {
	case b.term != request.Term:
		*b = back{term: request.Term, terms: visible.terms() + o.w.diskOf(request.Leader).visible.terms()}
	case prev.Index >= b.lowest:
		return
	}
	b.lowest = prev.Index
	b.steps++
	if b.steps > b.terms {
		o.w.fail("conflicts (5.3): n%d led its leader back %d times, but their logs have %d terms", p.index+1, b.steps, b.terms)
	}
}

// terms counts the terms that have entries.
func (im *image) terms() int {
	n, last := 0, uint64(0)
	for i := range im.entries {
		if term := im.entries[i].ID.Term; term != last {
			n, last = n+1, term
		}
	}
	return n
}
