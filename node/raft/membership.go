package raft

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Member is one node of a configuration.
type Member struct {
	Peer
	// Voter: it votes in the configuration, in the incoming one while a joint change is under way.
	Voter bool
	// Outgoing: it votes in the outgoing set of a joint configuration.
	Outgoing bool
	// Retain: it stays as a learner when the joint configuration ends, although it is no voter of the incoming set.
	Retain bool
}

// Learner reports whether the member gets the log but has no vote in any set.
func (m Member) Learner() bool { return !m.Voter && !m.Outgoing }

// Membership is a configuration of the cluster: who votes and who only learns. While any member is Outgoing the
// configuration is joint, and every decision needs a majority of both sets (paper section 6).
//
// A Membership is a value: it is never changed once it is in use, but replaced.
type Membership struct {
	// Members in ascending order of their ids, each id once.
	Members []Member
}

// NewMembership returns the simple configuration in which all peers vote.
func NewMembership(voters ...Peer) *Membership {
	m := &Membership{Members: make([]Member, 0, len(voters))}
	for _, p := range voters {
		m.Members = append(m.Members, Member{Peer: p, Voter: true})
	}
	slices.SortFunc(m.Members, func(a, b Member) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return m
}

// Validate reports what is wrong with a configuration that came from outside.
func (m *Membership) Validate() error {
	voters := 0
	for i, member := range m.Members {
		if member.ID == "" {
			return errors.New("membership: a member has no id")
		}
		if i > 0 && m.Members[i-1].ID >= member.ID {
			return fmt.Errorf("membership: members are not in ascending order at %s", member.ID)
		}
		if member.Voter {
			voters++
		}
	}
	if voters == 0 {
		return errors.New("membership: no voter")
	}
	return nil
}

// Joint reports whether two sets of voters must agree.
func (m *Membership) Joint() bool {
	return slices.ContainsFunc(m.Members, func(member Member) bool { return member.Outgoing })
}

// Find returns the member of that name.
func (m *Membership) Find(id NodeID) (Member, bool) {
	i, ok := slices.BinarySearchFunc(m.Members, id, func(member Member, id NodeID) int {
		return strings.Compare(string(member.ID), string(id))
	})
	if !ok {
		return Member{}, false
	}
	return m.Members[i], true
}

// Contains reports whether exactly this peer, name and incarnation, is a member.
func (m *Membership) Contains(p Peer) bool {
	member, ok := m.Find(p.ID)
	return ok && member.Peer == p
}

// IsVoter reports whether exactly this peer votes in any set.
func (m *Membership) IsVoter(p Peer) bool {
	member, ok := m.Find(p.ID)
	return ok && member.Peer == p && !member.Learner()
}

// Leave returns the simple configuration that ends a joint one: the incoming set votes, outgoing voters are gone but
// for those retained as learners.
func (m *Membership) Leave() *Membership {
	next := &Membership{}
	for _, member := range m.Members {
		if member.Outgoing && !member.Voter && !member.Retain {
			continue
		}
		member.Outgoing, member.Retain = false, false
		next.Members = append(next.Members, member)
	}
	return next
}

// String lists the voters, then the outgoing set of a joint configuration, then the learners: "[n1 n2]&[n1 n3] learners [n4]".
func (m *Membership) String() string {
	if m == nil {
		return "none"
	}
	var voters, outgoing, learners []NodeID
	for _, member := range m.Members {
		if member.Voter {
			voters = append(voters, member.ID)
		}
		if member.Outgoing {
			outgoing = append(outgoing, member.ID)
		}
		if member.Learner() {
			learners = append(learners, member.ID)
		}
	}
	s := fmt.Sprint(voters)
	if outgoing != nil {
		s += "&" + fmt.Sprint(outgoing)
	}
	if learners != nil {
		s += " learners " + fmt.Sprint(learners)
	}
	return s
}
