package raft

import (
	"fmt"
	"slices"
	"time"
)

// Role is what an engine does in its present term.
type Role uint8

// The roles of Raft (paper section 5.1). PreCandidate asks whether it could win before it raises its term.
const (
	Follower Role = iota
	PreCandidate
	Candidate
	Leader
)

// String returns the role's name in lower case.
func (r Role) String() string {
	return [...]string{"follower", "pre-candidate", "candidate", "leader"}[r]
}

// Engine is the Raft algorithm of one node. It is told what happened (a message, a completed write, the time) by
// methods, and returns what must be done by Output. It is deterministic: the same calls give the same outputs.
//
// It belongs to one goroutine. Every method that takes now may be called with any time that is not before the last one; timers are
// judged in Tick alone.
type Engine struct {
	cfg Config
	now time.Time

	vote Vote
	log  LogView
	// memberships: the newest committed one first, then those of later entries. The last one is in force.
	memberships []MembershipAt
	// settings likewise.
	settings []SettingAt
	commit   uint64
	// started is when this engine was made: what its node promised before, it does not know.
	started time.Time

	// seq numbers the writes handed out.
	seq  uint64
	disk durability
	// gated answers wait for disk.
	gated []gated

	// snapshot is the newest complete one that this node can offer, as far as it found out in its present leadership; snapshotKnown that of the whole cluster, as far as it was told.
	snapshot      SnapshotRef
	snapshotKnown LogID
	installing    *installing

	following following
	// campaign is not nil while the node stands for election, leading is not nil while it leads; never both.
	campaign *campaign
	leading  *leading
	// mute: no heartbeats, for tests of those who embed a node.
	mute bool
	// workers numbers replication targets over all leaderships, so that a late report is never taken for another's.
	workers uint64

	out Output
}

// New returns an engine that goes on from what was on disk.
func New(cfg Config, restored Restored, now time.Time) *Engine {
	e := &Engine{
		cfg:         cfg,
		now:         now,
		vote:        restored.Vote,
		log:         restored.Log,
		memberships: slices.Clone(restored.Memberships),
		settings:    slices.Clone(restored.Settings),
		started:     now,
		commit:      restored.Committed.Index,
	}
	if len(e.memberships) == 0 || e.memberships[0].ID.Index > e.commit {
		// A node that waits to be added: it knows nobody, and no quorum; or that was, by an entry which may still be undone.
		e.memberships = slices.Insert(e.memberships, 0, MembershipAt{Membership: &Membership{}})
	}
	if len(e.settings) == 0 || e.settings[0].ID.Index > e.commit {
		e.settings = slices.Insert(e.settings, 0, SettingAt{}) // instant failover
	}
	e.log.runs = slices.Clone(e.log.runs) // purging changes it in place
	e.disk.index = e.log.last.Index
	e.snapshotKnown = e.log.purged
	e.trimMemberships()
	e.trimSettings()
	e.resetElectionDeadline()
	if m := e.Membership(); m.IsVoter(cfg.Self) && m.HasQuorum(func(x Member) bool { return x.Peer == cfg.Self }) {
		e.following.deadline = now // nobody else to wait for
	}
	return e
}

// step notes the time of an input. Time never goes back.
func (e *Engine) step(now time.Time) {
	if now.After(e.now) {
		e.now = now
	}
}

// Tick judges all timers by now. It must be called after the inputs that have arrived were handed in, and not later
// than Deadline.
func (e *Engine) Tick(now time.Time) {
	e.step(now)
	if e.leading != nil {
		e.tickLeader()
	} else {
		e.tickFollower()
	}
}

// Deadline returns when Tick wants to be called next.
func (e *Engine) Deadline() time.Time {
	if e.leading != nil {
		return e.leading.nextTick
	}
	return e.followerDeadline()
}

// Role returns what the node does now.
func (e *Engine) Role() Role {
	switch {
	case e.leading != nil:
		return Leader
	case e.campaign == nil:
		return Follower
	case e.campaign.pre:
		return PreCandidate
	default:
		return Candidate
	}
}

// Vote returns the present term, and whom the node voted for in it.
func (e *Engine) Vote() Vote { return e.vote }

// Leader returns the leader of the present term, or the zero Peer.
func (e *Engine) Leader() Peer { return e.following.leader }

// Commit returns the commit index.
func (e *Engine) Commit() uint64 { return e.commit }

// Applicable returns the index up to which entries may be applied: committed, and durable in this node's own log.
func (e *Engine) Applicable() uint64 { return min(e.commit, e.disk.index) }

// LastLogID returns the id of the newest entry.
func (e *Engine) LastLogID() LogID { return e.log.last }

// Membership returns the configuration in force: the newest in the log, committed or not (paper section 6).
func (e *Engine) Membership() *Membership { return e.memberships[len(e.memberships)-1].Membership }

// MembershipAt is Membership with the log id of its entry.
func (e *Engine) MembershipAt() MembershipAt { return e.memberships[len(e.memberships)-1] }

// trimMemberships forgets configurations older than the newest committed one.
func (e *Engine) trimMemberships() {
	n := 0
	for n+1 < len(e.memberships) && e.memberships[n+1].ID.Index <= e.commit {
		n++
	}
	e.memberships = e.memberships[n:]
}

func (e *Engine) setCommit(index uint64) {
	e.commit = index
	e.trimMemberships()
	e.trimSettings()
	e.out.Changed = true
}

func (e *Engine) violation(format string, args ...any) {
	e.out.Violations = append(e.out.Violations, fmt.Sprintf(format, args...))
}

// becomeFollower ends any campaign and leadership, in the given term, which may be the present one.
func (e *Engine) becomeFollower(term uint64, leader Peer) {
	if e.leading != nil {
		e.endLeadership()
	}
	e.campaign = nil
	if term > e.vote.Term {
		e.setVote(Vote{Term: term})
		e.following.successors = nil
	}
	e.following.leader = leader
	if leader != (Peer{}) {
		e.following.gone, e.following.tries = false, 0
	}
	e.out.Changed = true
	e.awaitElection()
}
