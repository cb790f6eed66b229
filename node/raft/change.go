package raft

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Change is the configuration that somebody wants, whole: any set to any set.
type Change struct {
	// Voters wanted. Who votes now and is not among them is removed, unless it is among Learners.
	Voters []Peer
	// Learners wanted, voters not counted.
	Learners []Peer
	// If, when not nil, is the log id of the configuration that the caller saw: another one in force refuses the change.
	If *LogID
	// Force leaves out the checks that new voters are caught up, and that a majority of them answers.
	Force bool
}

var (
	// ErrNotLeading says that the node does not lead.
	ErrNotLeading = errors.New("not leader")
	// ErrTransferring says that the leader is handing over and takes nothing new.
	ErrTransferring = errors.New("leadership is being transferred")
	// ErrChangePending says that an earlier change of the membership is not committed yet: one at a time.
	ErrChangePending = errors.New("an earlier membership change is still under way")
	// ErrNotReady says that the leader has not committed an entry of its own term yet, and so does not know what is committed.
	ErrNotReady = errors.New("the leader has not committed an entry of its term yet")
)

// ChangedError says that the configuration is not the one that the change was meant for.
type ChangedError struct {
	// Current is the log id of the configuration in force.
	Current LogID
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("the membership has changed meanwhile: it is that of entry %v", e.Current)
}

// NotCaughtUpError says that a peer cannot become a voter yet: commits would wait for it.
type NotCaughtUpError struct {
	Peer Peer
	// Behind is how many entries it lacks.
	Behind uint64
	// Silent: it does not answer at all, or was never replicated to.
	Silent bool
}

func (e *NotCaughtUpError) Error() string {
	if e.Silent {
		return fmt.Sprintf("%s cannot become a voter: it does not answer (add it as a learner first, and start it)", e.Peer.ID)
	}
	return fmt.Sprintf("%s cannot become a voter yet: it is %d entries behind", e.Peer.ID, e.Behind)
}

// QuorumAtRiskError says that the new configuration would have no quorum now.
type QuorumAtRiskError struct {
	// Silent are the new voters that do not answer.
	Silent []NodeID
}

func (e *QuorumAtRiskError) Error() string {
	return fmt.Sprintf("the change would lose the quorum now: of the new voters %v do not answer (force it only if they will)", e.Silent)
}

// ReplacedError says that a name that votes cannot come back with another directory in one step: a name stands in a configuration
// once, and the old directory's vote is to be taken away first.
type ReplacedError struct{ Old, New Peer }

func (e *ReplacedError) Error() string {
	return fmt.Sprintf("%s votes with directory %s and cannot be replaced by directory %s in one step: remove it first, then add it again",
		e.Old.ID, e.Old.Incarnation, e.New.Incarnation)
}

// maxPromotionLag is how many entries a learner may be behind when it becomes a voter: what is replicated in a moment.
const maxPromotionLag = 1000

// ChangeMembership appends the configuration that leads to what is wanted, and returns its log id. If the set of voters
// changes, that is a joint configuration, and the leader ends it by itself once it is committed (paper section 6). When nothing would
// change it appends nothing and returns the log id of the configuration in force.
func (e *Engine) ChangeMembership(now time.Time, change Change) (LogID, error) {
	e.step(now)
	next, err := e.planChange(change)
	if err != nil || next == nil {
		return e.memberships[len(e.memberships)-1].ID, err
	}
	id := LogID{Term: e.vote.Term, Index: e.log.last.Index + 1}
	e.appendMembership(next)
	return id, nil
}

// planChange returns the configuration to append, or nil if it is in force already.
func (e *Engine) planChange(change Change) (*Membership, error) {
	current := e.memberships[len(e.memberships)-1]
	switch {
	case e.leading == nil:
		return nil, ErrNotLeading
	case e.leading.transfer != nil:
		return nil, ErrTransferring
	case !e.Serving():
		return nil, ErrNotReady
	case change.If != nil && *change.If != current.ID:
		return nil, &ChangedError{Current: current.ID}
	case current.ID.Index > e.commit || current.Membership.Joint():
		return nil, ErrChangePending
	}
	named := map[NodeID]Peer{}
	for _, p := range slices.Concat(change.Voters, change.Learners) {
		if other, ok := named[p.ID]; ok && other != p {
			return nil, fmt.Errorf("membership: %s is wanted with directory %s and with directory %s", p.ID, other.Incarnation, p.Incarnation)
		}
		named[p.ID] = p
		if old, ok := current.Membership.Find(p.ID); ok && old.Voter && old.Peer != p {
			return nil, &ReplacedError{Old: old.Peer, New: p}
		}
	}
	next, joint := current.Membership.Towards(change.Voters, change.Learners)
	if err := next.Validate(); err != nil {
		return nil, err
	}
	if next.Equal(current.Membership) {
		return nil, nil
	}
	if joint && !change.Force {
		if err := e.ready(next.Voters(), current.Membership); err != nil {
			return nil, err
		}
	}
	return next, nil
}

// ready checks that the new voters can carry the cluster now.
func (e *Engine) ready(voters []Peer, current *Membership) error {
	var silent []NodeID
	for _, p := range voters {
		if p == e.cfg.Self {
			continue
		}
		t := e.leading.targets[p.ID]
		answers := t != nil && t.peer == p && e.answers(t)
		if !answers {
			silent = append(silent, p.ID)
		}
		if current.IsVoter(p) {
			continue
		}
		if !answers || !t.answered {
			return &NotCaughtUpError{Peer: p, Silent: true}
		}
		if behind := e.log.last.Index - t.matched.Index; behind > maxPromotionLag {
			return &NotCaughtUpError{Peer: p, Behind: behind}
		}
	}
	if len(voters)-len(silent) <= len(voters)/2 {
		return &QuorumAtRiskError{Silent: silent}
	}
	return nil
}

// Towards returns the configuration that begins the way from this simple one to the wanted sets, and whether it is joint. Without
// a change of voters it is the wanted configuration itself.
func (m *Membership) Towards(voters, learners []Peer) (next *Membership, joint bool) {
	members := map[NodeID]Member{}
	for _, p := range learners {
		members[p.ID] = Member{Peer: p}
	}
	for _, p := range voters {
		members[p.ID] = Member{Peer: p, Voter: true}
	}
	for _, old := range m.Members {
		if wanted, ok := members[old.ID]; old.Voter && (!ok || !wanted.Voter || wanted.Peer != old.Peer) {
			joint = true
		}
	}
	for _, wanted := range members {
		if old, ok := m.Find(wanted.ID); wanted.Voter && (!ok || !old.Voter || old.Peer != wanted.Peer) {
			joint = true
		}
	}
	if joint {
		for _, old := range m.Members {
			if !old.Voter {
				continue
			}
			wanted, ok := members[old.ID]
			members[old.ID] = Member{Peer: old.Peer, Voter: wanted.Voter, Outgoing: true, Retain: ok && !wanted.Voter}
		}
	}
	next = &Membership{}
	for _, member := range members {
		next.Members = append(next.Members, member)
	}
	slices.SortFunc(next.Members, func(a, b Member) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return next, joint
}

// Equal reports whether two configurations are the same.
func (m *Membership) Equal(other *Membership) bool { return slices.Equal(m.Members, other.Members) }

// Voters returns the voters of the incoming, or only, set.
func (m *Membership) Voters() []Peer {
	return m.peers(func(member Member) bool { return member.Voter })
}

// Learners returns those who only learn.
func (m *Membership) Learners() []Peer { return m.peers(Member.Learner) }

func (m *Membership) peers(in func(Member) bool) []Peer {
	var peers []Peer
	for _, member := range m.Members {
		if in(member) {
			peers = append(peers, member.Peer)
		}
	}
	return peers
}

func (e *Engine) appendMembership(m *Membership) {
	e.appendEntry(Entry{ID: LogID{Term: e.vote.Term, Index: e.log.last.Index + 1}, Kind: EntryMembership, Membership: m})
	e.reconcileTargets() // a configuration takes effect when it is appended
	e.out.Replicate = true
	e.advanceCommit()
}

// finishChange is called when the commit index of a leader has advanced. A joint configuration that is committed is ended, whoever began
// it; a leader that the committed configuration leaves out hands over and steps down (paper section 6).
func (e *Engine) finishChange() {
	current := e.memberships[len(e.memberships)-1]
	if !e.Serving() || current.ID.Index > e.commit {
		return
	}
	switch {
	case current.Membership.Joint():
		e.appendMembership(current.Membership.Leave())
	case !current.Membership.IsVoter(e.cfg.Self):
		e.handOver()
		e.becomeFollower(e.vote.Term, Peer{})
	}
}

// handOver tells the best successor to stand at once, or whom leadership is being transferred to.
func (e *Engine) handOver() {
	if x := e.leading.transfer; x != nil {
		if !x.told {
			e.timeoutNow(x.to)
		}
		return
	}
	e.rankSuccessors() // who was ranked first at the last tick may lack the entry that ends this leadership
	for _, id := range e.leading.successors {
		if e.unable(id) == "" {
			e.timeoutNow(e.leading.targets[id].peer)
			return
		}
	}
}
