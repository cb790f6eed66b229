package raft

import "slices"

// QuorumValue returns the greatest value that a majority of each set of voters has reached, where value gives what a
// member has reached. It answers all questions of the kind "up to where does a quorum agree": the commit index
// (matched indexes), a read round, the time of the last quorum acknowledgement, a vote (0 or 1).
// A joint configuration needs both majorities (paper section 6). Without voters it returns 0: nothing is ever agreed.
func (m *Membership) QuorumValue(value func(Member) uint64) uint64 {
	incoming := majorityValue(m.Members, func(member Member) bool { return member.Voter }, value)
	if !m.Joint() {
		return incoming
	}
	return min(incoming, majorityValue(m.Members, func(member Member) bool { return member.Outgoing }, value))
}

// majorityValue sorts the values of the set and takes the one that a majority is at or above.
func majorityValue(members []Member, in func(Member) bool, value func(Member) uint64) uint64 {
	var buf [9]uint64 // enough for common clusters without an allocation
	values := buf[:0]
	for _, member := range members {
		if in(member) {
			values = append(values, value(member))
		}
	}
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

// HasQuorum reports whether those for whom yes holds are a majority of each set of voters.
func (m *Membership) HasQuorum(yes func(Member) bool) bool {
	return m.QuorumValue(func(member Member) uint64 {
		if yes(member) {
			return 1
		}
		return 0
	}) == 1
}
