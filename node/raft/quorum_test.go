package raft

import (
	"testing"
	"testing/quick"

	"pgregory.net/rapid"
)

// slowQuorum is QuorumValue as one would explain it: the greatest value such that, in each set of voters, those that reached it
// are more than half.
func slowQuorum(m *Membership, value map[NodeID]uint64) uint64 {
	best := uint64(0)
	for _, candidate := range value {
		agreed := true
		sets := 0
		for _, in := range []func(Member) bool{
			func(x Member) bool { return x.Voter }, func(x Member) bool { return x.Outgoing },
		} {
			size, reached := 0, 0
			for _, member := range m.Members {
				if in(member) {
					size++
					if value[member.ID] >= candidate {
						reached++
					}
				}
			}
			if size > 0 {
				sets++
				agreed = agreed && 2*reached > size
			}
		}
		if agreed && sets > 0 {
			best = max(best, candidate)
		}
	}
	return best
}

func TestQuorumValueEqualsTheSlowReference(t *testing.T) {
	same := func(roles, values [11]uint8) bool {
		m := &Membership{}
		reached := map[NodeID]uint64{}
		voters := false
		for i, role := range roles {
			if role%5 == 4 {
				continue // no member
			}
			member := Member{Peer: member(i + 1), Voter: role%5&1 != 0, Outgoing: role%5&2 != 0}
			voters = voters || member.Voter
			m.Members = append(m.Members, member)
			reached[member.ID] = uint64(values[i] % 8)
		}
		if !voters {
			return true // no valid configuration
		}
		got := m.QuorumValue(func(x Member) uint64 { return reached[x.ID] })
		if want := slowQuorum(m, reached); got != want {
			t.Logf("%v with %v: got %d, want %d", m, reached, got, want)
			return false
		}
		most := m.HasQuorum(func(x Member) bool { return reached[x.ID] >= 4 })
		return most == (got >= 4)
	}
	if err := quick.Check(same, &quick.Config{MaxCount: 20_000}); err != nil {
		t.Error(err)
	}
}

func TestQuorumOfNobodyAgreesOnNothing(t *testing.T) {
	if got := (&Membership{}).QuorumValue(func(Member) uint64 { return 9 }); got != 0 {
		t.Errorf("%d", got)
	}
	if (&Membership{}).HasQuorum(func(Member) bool { return true }) {
		t.Error("it has a quorum")
	}
}

// Two quorums of one configuration always meet, and so do one of a joint configuration and one of the configuration before or
// after it: that is what makes a change safe.
func TestQuorumsMeet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		joint := &Membership{}
		for i := range rapid.IntRange(1, 7).Draw(t, "members") {
			joint.Members = append(joint.Members, Member{
				Peer: member(i + 1), Voter: i == 0 || rapid.Bool().Draw(t, "voter"), Outgoing: rapid.Bool().Draw(t, "outgoing"),
			})
		}
		before := &Membership{}
		for _, m := range joint.Members {
			m.Voter, m.Outgoing = m.Outgoing, false
			before.Members = append(before.Members, m)
		}
		configs := []*Membership{joint, joint.Leave()}
		if joint.Joint() {
			configs = append(configs, before)
		}
		yes := rapid.SliceOfN(rapid.Bool(), 7, 7)
		first, second := yes.Draw(t, "first"), yes.Draw(t, "second")
		in := func(set []bool) func(Member) bool {
			return func(m Member) bool { return set[m.Incarnation-1] }
		}
		other := rapid.SampledFrom(configs).Draw(t, "other")
		if !joint.HasQuorum(in(first)) || !other.HasQuorum(in(second)) {
			return
		}
		for i := range first {
			if first[i] && second[i] {
				return
			}
		}
		t.Fatalf("quorum %v of %v and quorum %v of %v have nobody in common", first, joint, second, other)
	})
}

func TestMembershipValidate(t *testing.T) {
	for name, test := range map[string]struct {
		m  Membership
		ok bool
	}{
		"three voters":    {*voters(3), true},
		"no member":       {Membership{}, false},
		"learners only":   {Membership{Members: []Member{{Peer: member(1)}}}, false},
		"outgoing only":   {Membership{Members: []Member{{Peer: member(1), Outgoing: true}}}, false},
		"a name twice":    {Membership{Members: []Member{{Peer: member(1), Voter: true}, {Peer: member(1), Voter: true}}}, false},
		"not in order":    {Membership{Members: []Member{{Peer: member(2), Voter: true}, {Peer: member(1), Voter: true}}}, false},
		"without an id":   {Membership{Members: []Member{{Voter: true}}}, false},
		"joint, learners": {Membership{Members: []Member{{Peer: member(1), Voter: true, Outgoing: true}, {Peer: member(2)}, {Peer: member(3), Outgoing: true}}}, true},
	} {
		if err := test.m.Validate(); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMembershipLeave(t *testing.T) {
	joint := &Membership{Members: []Member{
		{Peer: member(1), Voter: true, Outgoing: true},
		{Peer: member(2), Voter: true},
		{Peer: member(3), Outgoing: true},
		{Peer: member(4), Outgoing: true, Retain: true},
		{Peer: member(5)},
	}}
	if got, want := joint.String(), "[n1 n2]&[n1 n3 n4] learners [n5]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := joint.Leave().String(), "[n1 n2] learners [n4 n5]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if joint.Leave().Joint() || !joint.Joint() {
		t.Error("joint or not")
	}
	if !joint.IsVoter(member(3)) || joint.IsVoter(member(5)) || joint.IsVoter(Peer{ID: "n1", Incarnation: 9}) || joint.Contains(Peer{ID: "n1"}) {
		t.Error("who votes")
	}
}
