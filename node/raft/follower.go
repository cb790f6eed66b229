package raft

import (
	"slices"
	"time"
)

// following is what a node knows of the leader of the present term. While it leads, leader is itself.
type following struct {
	leader Peer
	// heard is when the last valid message of the leader arrived.
	heard time.Time
	// deadline is when to stand for election.
	deadline time.Time
	// successors ranks who should stand when the leader is gone, as it said itself.
	successors []NodeID
	// gone: NATS said that nobody is subscribed to the leader's subject, and nothing was heard from it since.
	gone bool
	// tries counts the campaigns since then.
	tries int
	// probing: a probe of the leader is under way, sent at probedAt.
	probing  bool
	probedAt time.Time
	// probeAt is when to probe the leader next.
	probeAt time.Time
	// roundTrip is the time that the last probe took.
	roundTrip time.Duration
	// held are vote requests that wait for the probe's answer.
	held []heldVote
	// removed: a voter told of a committed configuration without this node. Only a leader's message ends it.
	removed bool
	// neededBy is where the log ends of who last asked for a vote that this node could not give (see noteNeeded). Only a leader ends that.
	neededBy LogID
	// quiet: this node was told not to stand for election.
	quiet bool
}

type heldVote struct {
	to  ReplyTo
	req VoteRequest
}

func (e *Engine) resetElectionDeadline() {
	timeout := e.cfg.ElectionTimeout
	e.following.deadline = e.now.Add(timeout + time.Duration(e.cfg.Rand.Int64N(int64(timeout))))
}

// awaitElection sets the time of the next campaign: after an election timeout, but if the leader is known to be gone, on the
// scale of an instant election, so that a split one is soon tried again. Each try doubles the scale: a disk or a network that
// is slower than thought gets the time it needs, and who is cut off does not ask for ever at that pace.
func (e *Engine) awaitElection() {
	e.resetElectionDeadline()
	if e.following.gone {
		scale := min(e.electionScale()<<min(e.following.tries, 10), e.cfg.ElectionTimeout)
		e.following.deadline = e.now.Add(scale + time.Duration(e.cfg.Rand.Int64N(int64(scale))))
	}
}

// inTouch reports whether the node has a leader of whom it heard within the least election timeout. It then helps
// nobody to unseat that leader (paper section 6, last paragraphs; dissertation section 9.6).
func (e *Engine) inTouch() bool {
	if e.leading != nil {
		return true // its own quorum check is what ends it
	}
	return e.following.leader != (Peer{}) && !e.following.gone && e.now.Sub(e.following.heard) < e.cfg.ElectionTimeout
}

func (e *Engine) tickFollower() {
	e.tickProbe()
	if e.now.Before(e.following.deadline) {
		return
	}
	if !e.mayStand() || e.diskStalled() {
		e.campaign = nil
		e.resetElectionDeadline() // a learner that nobody needs waits, as a removed node does; who cannot write cannot win
		return
	}
	e.startPreVote()
}

func (e *Engine) followerDeadline() time.Time {
	d := e.following.deadline
	if e.mayProbe() && e.following.probeAt.Before(d) {
		d = e.following.probeAt
	}
	return d
}

// Append handles an append request or heartbeat (paper section 5.3).
func (e *Engine) Append(now time.Time, req *AppendRequest, to ReplyTo) {
	e.step(now)
	if wrong := req.malformed(e.cfg.Self); wrong != "" {
		e.violation("append request of %v: %s", req.Leader, wrong)
		e.refuseAppend(to)
		return
	}
	if !e.follows(req.Term, req.Leader) {
		e.refuseAppend(to)
		return
	}
	e.heardFromLeader(now, req.Term, req.Leader, req.Successors)
	resp, ok := e.acceptEntries(req)
	switch {
	case e.out.Halt != "":
	case ok:
		e.snapshotKnown = maxLogID(e.snapshotKnown, req.Snapshot)
		e.replyAppend(to, resp)
	default:
		e.refuseAppend(to)
	}
}

// follows reports whether the sender can be the leader of its term as far as this node knows, and that term is not over.
func (e *Engine) follows(term uint64, sender Peer) bool {
	if term < e.vote.Term {
		return false
	}
	if leader := e.following.leader; term == e.vote.Term && leader != (Peer{}) && leader != sender {
		e.violation("%v says that it leads in term %d, which %v leads", sender, term, leader)
		return false
	}
	return true
}

// refuseAppend tells the sender that it does not lead this node: not in this term, or not at all.
func (e *Engine) refuseAppend(to ReplyTo) {
	e.replyAppend(to, AppendResponse{From: e.cfg.Self, Term: e.vote.Term, Status: AppendRefused})
}

// heardFromLeader follows the sender of a valid append.
func (e *Engine) heardFromLeader(arrived time.Time, term uint64, leader Peer, successors []NodeID) {
	if term > e.vote.Term || e.campaign != nil || e.following.leader != leader || e.following.gone {
		e.becomeFollower(term, leader)
	}
	f := &e.following
	f.removed, f.neededBy = false, LogID{}
	if arrived.After(f.heard) {
		f.heard = arrived
	}
	if len(successors) > 0 {
		f.successors = successors
	}
	e.resetElectionDeadline()
	f.probeAt = f.heard.Add(e.missedHeartbeat())
	e.refuseHeld()
}

// acceptEntries checks the request against the log and takes what is new. The log is truncated only where an entry
// of another term stands in the place of one in the request, never because a request is short, old or repeated. It returns
// false if the request contradicts what is committed: then no leader can have sent it.
func (e *Engine) acceptEntries(req *AppendRequest) (AppendResponse, bool) {
	resp := AppendResponse{From: e.cfg.Self, Term: e.vote.Term, Status: AppendMatched}
	prev, entries := req.Prev, req.Entries
	if purged := e.log.purged; prev.Index < purged.Index {
		// What is purged is committed, so it is in the leader's log as well: go on after it.
		skip := min(purged.Index-prev.Index, uint64(len(entries)))
		if skip > 0 && entries[skip-1].ID.Index == purged.Index && entries[skip-1].ID != purged {
			return e.contradicts(req, entries[skip-1].ID)
		}
		prev, entries = purged, entries[skip:]
	}
	if !e.log.Has(prev) {
		if prev.Index <= e.commit {
			return e.contradicts(req, prev)
		}
		resp.Status = AppendConflict
		resp.Hint = e.log.Hint(prev)
		return resp, true
	}
	resp.Matched = prev
	for i, entry := range entries {
		if e.log.Has(entry.ID) {
			continue
		}
		if entry.ID.Index <= e.commit {
			return e.contradicts(req, entry.ID)
		}
		for j := range entries[i:] {
			if wrong := e.cfg.Versions.Unknown(&entries[i+j]); wrong != "" {
				e.out.Halt = wrong
				return AppendResponse{}, false
			}
		}
		if entry.ID.Index <= e.log.last.Index {
			e.truncate(entry.ID.Index)
		}
		e.appendEntries(entries[i:])
		break
	}
	if len(entries) > 0 {
		resp.Matched = entries[len(entries)-1].ID
	}
	// Commit no further than this request verified: what follows in our log may not be the leader's.
	if commit := min(req.Commit, resp.Matched.Index); commit > e.commit {
		e.setCommit(commit)
	}
	return resp, true
}

func (e *Engine) contradicts(req *AppendRequest, id LogID) (AppendResponse, bool) {
	e.violation("append request of %v has %v in its log, but index %d is committed with another term", req.Leader, id, id.Index)
	return AppendResponse{}, false
}

// LeaderHeard returns when the newest valid message of a leader arrived; zero if none did.
func (e *Engine) LeaderHeard() time.Time { return e.following.heard }

// rank is the node's place among the successors that the leader named, 0 for the preferred one.
func (e *Engine) rank() int {
	if i := slices.Index(e.following.successors, e.cfg.Self.ID); i >= 0 {
		return i
	}
	return len(e.following.successors)
}
