package raft

import (
	"slices"
	"time"
)

// campaign is an attempt to become leader: first a pre-vote, which changes nothing anywhere (dissertation section 9.6), then the
// vote itself (paper section 5.2).
type campaign struct {
	pre bool
	// term asked for: one above the present in a pre-vote, the present in a vote.
	term uint64
	// answers by voter: by name and directory, for the configuration may give the name to another one meanwhile.
	granted, refused map[Peer]bool
	// asked: the requests are out. In a vote that is only after the node's own vote is durable.
	asked bool
	// transfer: the leader itself wants it.
	transfer bool
}

// mayStand reports whether the node is a voter, in the configuration in force or in the one that it is to replace. Who is left
// out of a configuration that is not committed yet must still stand: perhaps only those have its entry, and nobody without it
// could win their votes (dissertation section 4.2.2). So must a learner whose vote is needed.
func (e *Engine) mayStand() bool {
	if e.following.removed || e.following.quiet {
		return false
	}
	return slices.ContainsFunc(e.memberships, func(at MembershipAt) bool {
		if e.needed() {
			return at.Membership.Contains(e.cfg.Self)
		}
		return at.Membership.IsVoter(e.cfg.Self)
	})
}

// startPreVote asks the others whether they would vote for this node. That changes nothing here or there.
func (e *Engine) startPreVote() {
	e.awaitElection()
	if until := e.promised(false); e.now.Before(until) {
		e.campaign = nil
		if e.following.deadline.Before(until) {
			e.following.deadline = until
		}
		return // its own vote is promised like any
	}
	e.following.tries++
	e.campaign = newCampaign(true, e.vote.Term+1)
	e.out.Changed = true
	e.askVotes()
}

// startVote stands for election in a new term. The node votes for itself first, and asks when that is on disk.
func (e *Engine) startVote() {
	e.awaitElection()
	e.following.leader = Peer{}
	e.following.successors = nil
	e.setVote(Vote{Term: e.vote.Term + 1, For: e.cfg.Self.ID})
	e.campaign = newCampaign(false, e.vote.Term)
	e.out.Changed = true
}

func newCampaign(pre bool, term uint64) *campaign {
	return &campaign{pre: pre, term: term, granted: map[Peer]bool{}, refused: map[Peer]bool{}}
}

// campaignDurable goes on with a vote once the node's own is on disk: only then does it count, and may others hear of
// the term.
func (e *Engine) campaignDurable() {
	if e.campaign == nil || e.campaign.pre || e.campaign.asked || !e.voteDurable() {
		return
	}
	e.askVotes()
}

// askVotes counts the node's own vote and asks for those of the others.
func (e *Engine) askVotes() {
	e.campaign.asked = true
	e.campaign.granted[e.cfg.Self] = true
	for _, member := range e.Membership().Members {
		if member.Learner() || member.Peer == e.cfg.Self {
			continue
		}
		e.out.Votes = append(e.out.Votes, SendVote{To: member.Peer, Request: VoteRequest{
			Term: e.campaign.term, Candidate: e.cfg.Self, Last: e.log.last, Pre: e.campaign.pre, Transfer: e.campaign.transfer,
		}})
	}
	e.countVotes()
}

// VoteAnswer handles the answer to a vote or pre-vote request of this node.
func (e *Engine) VoteAnswer(now time.Time, resp *VoteResponse) {
	e.step(now)
	if resp.Term > MaxTerm {
		e.violation("vote answer of %v is of term %d, beyond all bounds", resp.From, resp.Term)
		return
	}
	removed := e.toldRemoved(resp)
	if removed {
		e.following.removed = true
		e.campaign = nil
		e.out.Changed = true
	}
	if resp.Term > e.vote.Term && !(resp.Pre && resp.Granted) {
		e.becomeFollower(resp.Term, Peer{})
		return
	}
	if removed {
		return
	}
	c := e.campaign
	if c == nil || resp.Pre != c.pre || (resp.Granted && resp.Term != c.term) || !e.Membership().IsVoter(resp.From) {
		return // an answer of another campaign, or of somebody whose vote does not count
	}
	if !resp.Granted && !resp.Pre && resp.Term != c.term {
		return
	}
	if resp.Granted {
		c.granted[resp.From] = true
	} else {
		c.refused[resp.From] = true
	}
	e.countVotes()
}

// toldRemoved reports whether a voter says that this node is no member, and knows of a later configuration, or that the one which this node
// has, and does not know to be committed, is. That counts only while the node stands: a late answer must not outweigh a leader that was
// heard since.
func (e *Engine) toldRemoved(resp *VoteResponse) bool {
	newest := e.memberships[len(e.memberships)-1]
	since := newest.ID.Index
	if newest.Membership.Contains(e.cfg.Self) {
		since++
	}
	return e.campaign != nil && resp.Removed >= since && resp.Removed <= MaxIndex && newest.Membership.IsVoter(resp.From)
}

func (e *Engine) countVotes() {
	c := e.campaign
	m := e.Membership()
	switch {
	case m.HasQuorum(func(x Member) bool { return c.granted[x.Peer] }):
		switch {
		case !c.pre:
			e.becomeLeader()
		case e.bound(false):
			e.campaign = nil // a snapshot brought leases while it asked
			e.out.Changed = true
		default:
			e.startVote()
		}
	case !m.HasQuorum(func(x Member) bool { return !c.refused[x.Peer] }):
		// It cannot be won any more. Wait for the deadline that the campaign set.
		e.campaign = nil
		e.out.Changed = true
	}
}

// VoteRequested handles a vote or pre-vote request.
func (e *Engine) VoteRequested(now time.Time, req *VoteRequest, to ReplyTo) {
	e.step(now)
	if wrong := req.malformed(e.cfg.Self); wrong != "" {
		e.violation("vote request of %v: %s", req.Candidate, wrong)
		e.refuseVote(req, to)
		return
	}
	if e.bound(req.Transfer) {
		e.refuseVote(req, to)
		return
	}
	if req.Term >= e.vote.Term && e.inTouch() && !req.Transfer {
		e.holdVote(req, to)
		return
	}
	e.decideVote(req, to)
}

// decideVote answers a request on its merits: the term, the one vote a term, and the log (paper sections 5.2 and 5.4.1).
func (e *Engine) decideVote(req *VoteRequest, to ReplyTo) {
	upToDate := !req.Last.Less(e.log.last)
	e.noteNeeded(req)
	if req.Pre {
		free := req.Term > e.vote.Term || (req.Term == e.vote.Term && (e.vote.For == "" || e.vote.For == req.Candidate.ID))
		resp := VoteResponse{From: e.cfg.Self, Term: e.vote.Term, Pre: true, Removed: e.removedSince(req)}
		if free && upToDate {
			resp.Term, resp.Granted = req.Term, true
		}
		e.replyVote(to, resp)
		return
	}
	if req.Term > e.vote.Term {
		e.becomeFollower(req.Term, Peer{})
	}
	granted := req.Term == e.vote.Term && upToDate && (e.vote.For == "" || e.vote.For == req.Candidate.ID)
	if granted {
		e.setVote(Vote{Term: req.Term, For: req.Candidate.ID})
		e.resetElectionDeadline()
	}
	e.replyVote(to, VoteResponse{From: e.cfg.Self, Term: e.vote.Term, Granted: granted, Removed: e.removedSince(req)})
}

// noteNeeded notes a request for a vote that this node cannot give, because its own log is newer. The asker counts it among the voters.
func (e *Engine) noteNeeded(req *VoteRequest) {
	if req.Last.Less(e.log.last) && e.mayKnowLater(req.Last) {
		e.following.neededBy = req.Last
	}
}

// needed reports whether somebody perhaps cannot win without this node's vote, and cannot get it.
func (e *Engine) needed() bool {
	return e.following.neededBy != LogID{} && e.mayKnowLater(e.following.neededBy)
}

// mayKnowLater reports whether a log that ends there can have a configuration that is later than the committed one which this node knows. It then
// has that one as well; who lacks it goes by an older configuration, and cannot win at all.
func (e *Engine) mayKnowLater(last LogID) bool {
	committed := e.memberships[0].ID
	return last.Term >= committed.Term && last.Index >= committed.Index
}

// removedSince returns the index of the newest committed configuration if the candidate is no member of it, else 0. If all of the
// candidate's log is of earlier terms, what it has from there on is superseded, and with it any configuration: the index is then after
// all of it, or it would take its own one for later.
func (e *Engine) removedSince(req *VoteRequest) uint64 {
	committed := e.memberships[0]
	switch {
	case len(committed.Membership.Members) == 0 || committed.Membership.Contains(req.Candidate):
		return 0
	case req.Last.Term < committed.ID.Term:
		return max(committed.ID.Index, req.Last.Index+1)
	}
	return committed.ID.Index
}

// Removed reports whether a voter told this node that it is no member any more. It then stands for no election until a leader
// counts it among its members again.
func (e *Engine) Removed() bool { return e.following.removed }
