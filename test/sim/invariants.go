package sim

import (
	"encoding/binary"

	"quorate/node/raft"
)

// oracle knows everything that all nodes ever did, and checks what Raft promises (the names are those of the paper's
// figure 3, numbers are its sections).
type oracle struct {
	w *world
	// leaders by term.
	leaders map[uint64]int
	// votes given, by voter and term.
	votes map[ballot]raft.NodeID
	// prefixes: a hash over the whole log up to an entry, by the entry's id.
	prefixes map[raft.LogID]uint64
	// committed[i] is the entry committed at index i+1, by any node ever; by[i] is the term of the leader that did.
	committed []committedEntry
	by        []uint64
	// quorum is the configuration under which the last of them was committed, membership the newest committed one.
	quorum, membership *raft.Membership
	// membershipIndex is where membership stands in the log.
	membershipIndex uint64
	// acked is the greatest index of a write that was acknowledged to a client.
	acked uint64
	// told are the voters that a leader told to stand, by the term in which it did; handed are the terms in which one stood for that.
	told   map[ballot]bool
	handed map[uint64]bool
	// agreed are the peers of which the leader of a term came to know where their logs agree: it may have ended since, and what it sent be on its way.
	agreed map[ballot]bool
	// seen is the greatest index of a state that a client was told of.
	seen uint64
	// newest is the greatest term that had a leader.
	newest uint64
	// leases counts the changes to one that were committed.
	leases int
}

type ballot struct {
	voter raft.Peer
	term  uint64
}

type committedEntry struct {
	id     raft.LogID
	prefix uint64
	entry  raft.Entry
}

func (c committedEntry) equals(other committedEntry) bool {
	return c.id == other.id && c.prefix == other.prefix
}

// past is what a node was before a step.
type past struct {
	role       raft.Role
	term       uint64
	commit     uint64
	membership *raft.Membership
	since      uint64 // the index of membership
	setting    raft.SettingAt
	handing    bool
}

func newOracle(w *world) oracle {
	return oracle{
		w: w, leaders: map[uint64]int{}, votes: map[ballot]raft.NodeID{}, prefixes: map[raft.LogID]uint64{},
		quorum: w.plan.membership, membership: w.plan.membership, told: map[ballot]bool{}, handed: map[uint64]bool{},
		agreed: map[ballot]bool{},
	}
}

func (o *oracle) before(p *process) past {
	e := p.engine
	at := e.MembershipAt()
	return past{
		role: e.Role(), term: e.Vote().Term, commit: e.Commit(), membership: at.Membership, since: at.ID.Index, setting: e.SettingAt(),
		handing: e.Transferring(),
	}
}

// decided checks the engine's output against the disk before anything of it is done: nothing that leaves may depend on what is
// not durable (figure 2, "updated on stable storage before responding").
func (o *oracle) decided(p *process, before past, out raft.Output) {
	for _, v := range out.Violations {
		o.w.fail("n%d reports a violation although nobody lies: %s", p.index+1, v)
	}
	if out.Write != nil && out.Write.TruncateFrom != 0 && before.role == raft.Leader && p.leads(before.term) {
		o.w.fail("leader append-only (5.3): n%d leads in term %d and truncates its log from %d",
			p.index+1, before.term, out.Write.TruncateFrom)
	}
	o.undoes(p, out.Write)
	synced := &p.disk.synced
	for _, v := range out.Votes {
		if v.Request.Pre {
			continue
		}
		if want := (raft.Vote{Term: v.Request.Term, For: p.self.ID}); synced.vote != want {
			o.w.fail("durable votes (5.2): n%d asks for votes in term %d, on its disk is %v", p.index+1, v.Request.Term, synced.vote)
		}
		o.votesOnce(p, v.Request.Term, p.self.ID)
		o.stands(p, v.Request)
	}
	for _, t := range out.TimeoutNow {
		o.told[ballot{voter: t.To, term: t.Request.Term}] = true
	}
	for _, r := range out.VoteReplies {
		if !r.Response.Granted || r.Response.Pre {
			continue
		}
		request := p.replies[r.To].request.(*raft.VoteRequest)
		if want := (raft.Vote{Term: request.Term, For: request.Candidate.ID}); synced.vote != want && synced.vote.Term <= want.Term {
			o.w.fail("durable votes (5.2): n%d grants %v, on its disk is %v", p.index+1, want, synced.vote)
		}
		o.votesOnce(p, request.Term, request.Candidate.ID)
	}
	for _, r := range out.AppendReplies {
		if request, ok := p.replies[r.To].request.(*raft.AppendRequest); ok && r.Response.Status == raft.AppendConflict {
			o.disagrees(p, request)
		}
		if r.Response.Status != raft.AppendMatched {
			continue
		}
		if !synced.has(r.Response.Matched) || synced.vote.Term < r.Response.Term {
			o.w.fail("durable answers (5.3): n%d in term %d matched %v, on its disk is a log up to %v and %v",
				p.index+1, r.Response.Term, r.Response.Matched, synced.last(), synced.vote)
		}
	}
}

// votesOnce checks that nobody votes for two in a term (5.2).
func (o *oracle) votesOnce(p *process, term uint64, candidate raft.NodeID) {
	b := ballot{voter: p.self, term: term}
	if was, ok := o.votes[b]; ok && was != candidate {
		o.w.fail("one vote a term (5.2): %s voted for %s and for %s in term %d", p.self.ID, was, candidate, term)
	}
	o.votes[b] = candidate
}

// written checks log matching: the same id stands for the same log up to there, on every node, at every time (5.3).
func (o *oracle) written(p *process, write *raft.Write) {
	o.oneChange(p, write)
	for _, entry := range write.Append {
		prefix := p.disk.visible.prefix(entry.ID.Index)
		if was, ok := o.prefixes[entry.ID]; ok && was != prefix {
			o.w.fail("log matching (5.3): the log of n%d up to %v differs from another with that entry", p.index+1, entry.ID)
		}
		o.prefixes[entry.ID] = prefix
	}
}

// after checks a node after its step.
func (o *oracle) after(p *process, before past) {
	e := p.engine
	if err := e.Check(); err != nil {
		o.w.fail("engine of n%d: %w", p.index+1, err)
		return
	}
	if !e.Deadline().After(p.time()) {
		o.w.fail("n%d wants to be called again at once, for ever", p.index+1)
	}
	if e.Vote().Term < before.term || e.Commit() < before.commit {
		o.w.fail("n%d goes back from term %d, commit %d to term %d, commit %d",
			p.index+1, before.term, before.commit, e.Vote().Term, e.Commit())
	}
	if e.LastLogID() != p.disk.visible.last() || e.Vote() != p.disk.visible.vote {
		o.w.fail("n%d: engine has %v and %v, its disk %v and %v",
			p.index+1, e.LastLogID(), e.Vote(), p.disk.visible.last(), p.disk.visible.vote)
	}
	o.inForce(p)
	if e.Role() == raft.Leader {
		o.leads(p, e.Vote().Term, before)
		o.handsOver(p, before)
		o.mayGoOnLeading(p)
	} else if before.role == raft.Leader {
		o.w.happened(leaderStepsDown)
	}
	o.nothingLost()
}

// leads checks election safety (5.2) and leader completeness (5.4).
func (o *oracle) leads(p *process, term uint64, before past) {
	was, known := o.leaders[term]
	if known && was != p.index {
		o.w.fail("election safety (5.2): n%d and n%d lead in term %d", was+1, p.index+1, term)
	}
	if known {
		return
	}
	o.leaders[term] = p.index
	if o.handed[term] {
		o.w.happened(transferWon)
	}
	o.newest = max(o.newest, term)
	o.checkWiped(p)
	o.elected(p, term, before)
	o.checkLeases(p, term)
	o.checkSetting(p)
	o.w.trace.add(o.w.now, "LEADS", p.index, -1, term, 0, nil)
	// Of earlier terms only: who wins late, while a later term has its leader already, need not have what that one committed.
	n := len(o.committed)
	for n > 0 && o.by[n-1] >= term {
		n--
	}
	if n > 0 && !p.disk.visible.holds(o.committed[n-1]) {
		o.w.fail("leader completeness (5.4): n%d leads in term %d without entry %v, committed in term %d",
			p.index+1, term, o.committed[n-1].id, o.by[n-1])
	}
}

// commits checks what a node has newly committed: the same as everyone, first by a leader, of its own term (5.4.2), and on
// the disks of a quorum.
func (o *oracle) commits(p *process, before past) {
	e := p.engine
	visible := &p.disk.visible
	commit := e.Commit()
	if commit > before.commit && before.role == raft.Leader && p.leads(before.term) {
		if term := visible.entries[commit-1].ID.Term; term != before.term {
			o.w.fail("own term only (5.4.2): n%d leads in term %d and commits entry %v by counting",
				p.index+1, before.term, visible.entries[commit-1].ID)
		}
	}
	for index := before.commit + 1; index <= commit; index++ {
		c := visible.at(index)
		if index <= uint64(len(o.committed)) {
			if !o.committed[index-1].equals(c) {
				o.w.fail("state machine safety (5.4.3): n%d commits %v, but %v is committed",
					p.index+1, c.id, o.committed[index-1].id)
			}
			continue
		}
		if before.role != raft.Leader && e.Role() != raft.Leader {
			o.w.fail("commit index (5.3): follower n%d commits %v before any leader did", p.index+1, c.id)
		}
		o.committed = append(o.committed, c)
		o.by = append(o.by, visible.entries[commit-1].ID.Term) // a leader commits up to an entry of its own term
		if entry := visible.entries[index-1]; entry.Kind == raft.EntryMembership {
			o.configured(p, entry, before)
			o.membership, o.membershipIndex = entry.Membership, index
		} else if entry.Kind == raft.EntrySetting && entry.Setting.Lease > 0 {
			o.leases++
		}
		if index == commit {
			o.quorum = o.committedBy(p, before, c)
			o.w.trace.add(o.w.now, "COMMITS", p.index, -1, c.id.Index, c.id.Term, nil)
		}
	}
}

// committedBy returns the configuration by which a leader committed an entry in a step: the one before it, or the one after it. Or one in
// between: a leader that commits a joint configuration ends it and counts by what follows, and may hear in the same step of another leader, whose
// entries take the place of that end.
func (o *oracle) committedBy(p *process, before past, c committedEntry) *raft.Membership {
	if o.durable(c, before.membership) {
		return before.membership
	}
	if before.membership.Joint() && !p.leads(before.term) {
		for index := max(1, before.since, before.commit); index <= c.id.Index; index++ {
			ended := p.disk.visible.at(index)
			if ended.id.Term == before.term && o.durable(ended, before.membership) {
				return before.membership.Leave()
			}
		}
	}
	return p.engine.Membership()
}

// nothingLost checks that what is committed is on the disks of a quorum, at all times.
func (o *oracle) nothingLost() {
	if n := len(o.committed); n > 0 && !o.durable(o.committed[n-1], o.quorum) {
		o.w.fail("durability: committed entry %v is not on the disks of a quorum of %v", o.committed[n-1].id, o.quorum)
	}
}

// durable reports whether an entry is on the disks of a majority of each set of voters.
func (o *oracle) durable(c committedEntry, m *raft.Membership) bool {
	return majorities(m, func(member raft.Member) bool { return o.w.diskOf(member.Peer).synced.holds(c) })
}

func (o *oracle) started(p *process) {
	if err := p.engine.Check(); err != nil {
		o.w.fail("engine of n%d after its start: %w", p.index+1, err)
	}
}

func (o *oracle) crashed() { o.nothingLost() }

// applies checks state machine safety (5.4.3): every node applies the same entries in the same order, none twice in a
// life, and none that its own disk could lose.
func (o *oracle) applies(p *process, entry raft.Entry) {
	index := entry.ID.Index
	if index != p.applied.Index+1 || index > uint64(len(o.committed)) || !p.disk.visible.holds(o.committed[index-1]) {
		o.w.fail("state machine safety (5.4.3): n%d applies %v after %v", p.index+1, entry.ID, p.applied)
		return
	}
	if !p.disk.synced.holds(o.committed[index-1]) {
		o.w.fail("n%d applies %v, which is not durable in its own log", p.index+1, entry.ID)
	}
}

// purges checks that what a node forgets it can have again: from its own state, and for others from a snapshot that was completed.
func (o *oracle) purges(p *process, to raft.LogID) {
	if to.Index > p.disk.flushed.Index {
		o.w.fail("n%d purges up to %v, but its own state is durable up to %v", p.index+1, to, p.disk.flushed)
	}
	if to.Index > o.w.store.newest {
		o.w.fail("n%d purges up to %v, but the newest snapshot that was completed is of %d", p.index+1, to, o.w.store.newest)
	}
	o.keepsForInstallers(p, to)
	if to.Index <= uint64(len(o.committed)) && o.committed[to.Index-1].id != to || to.Index > uint64(len(o.committed)) {
		o.w.fail("n%d purges up to %v, which is not committed", p.index+1, to)
	}
}

// installs checks that a snapshot is one of what is committed, and does not take a node back.
func (o *oracle) installs(p *process, s stored) {
	last := s.ref.Last
	if last.Index > uint64(len(o.committed)) || o.committed[last.Index-1].id != last || last.Index <= p.applied.Index {
		o.w.fail("n%d at %v installs a snapshot of %v", p.index+1, p.applied, last)
	}
}

// acknowledged checks that what a client was promised is committed and on the disks of a quorum.
func (o *oracle) acknowledged(p *process, id raft.LogID) {
	if id.Index > uint64(len(o.committed)) || o.committed[id.Index-1].id != id {
		o.w.fail("n%d acknowledges %v, which is not committed", p.index+1, id)
		return
	}
	o.nothingLost()
	o.acked = max(o.acked, id.Index)
}

// floor is what a read must see that begins now: what was acknowledged, and what another read saw.
func (o *oracle) floor() uint64 { return max(o.acked, o.seen) }

// read checks linearizability: a read sees every write that was acknowledged before it began (8).
func (o *oracle) read(p *process, op readOp) {
	if op.index < op.floor {
		o.w.fail("linearizable reads (8): n%d answers a read at index %d, but %d was acknowledged or seen before it began",
			p.index+1, op.index, op.floor)
	}
}

func (o *oracle) replicator(k *worker) {
	if err := k.replicator.Check(); err != nil {
		o.w.fail("n%d: replicator for %v: %w", k.p.index+1, k.newest.Peer, err)
	}
	if k.replicator.Progress().Matched.Index > 0 {
		o.agreed[ballot{voter: k.newest.Peer, term: k.newest.Term}] = true
	}
}

func (p *process) leads(term uint64) bool {
	return p.engine.Role() == raft.Leader && p.engine.Vote().Term == term
}

// prefix is the hash of the log up to index.
func (im *image) prefix(index uint64) uint64 { return im.prefixes[index-1] }

// at is an entry as it would be committed.
func (im *image) at(index uint64) committedEntry {
	return committedEntry{id: im.entries[index-1].ID, prefix: im.prefix(index), entry: im.entries[index-1]}
}

// holds reports whether the log has that entry, and before it all that belongs before it.
func (im *image) holds(c committedEntry) bool {
	return im.has(c.id) && im.prefix(c.id.Index) == c.prefix
}

// extend is the hash of a log with one entry more.
func extend(prefix uint64, e raft.Entry) uint64 {
	var buf [8]byte
	h := prefix
	mix := func(v uint64) {
		h = (h ^ v) * 0x9E3779B97F4A7C15
		h ^= h >> 31
	}
	mix(e.ID.Term)
	mix(e.ID.Index)
	mix(uint64(e.Kind))
	copy(buf[:], e.Data)
	mix(binary.BigEndian.Uint64(buf[:]))
	if e.Setting != nil {
		mix(uint64(e.Setting.Lease))
		mix(uint64(e.Setting.Versions.Protocol))
		mix(uint64(e.Setting.Versions.Command))
	}
	if e.Membership != nil {
		for _, c := range e.Membership.String() {
			mix(uint64(c))
		}
	}
	return h
}
