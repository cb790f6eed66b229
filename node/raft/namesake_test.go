package raft

import "testing"

// A vote counts for the directory that gave it, not for another one under that name which a snapshot names meanwhile.
func TestAVoteOfALostDirectoryDoesNotCountForItsSuccessor(t *testing.T) {
	b := newBench(t, voters(5), terms{1, 1})
	b.offer(3, 1, ref(1, 9)) // fetched for long
	b.stand()
	b.grant(2, 3)
	b.grant(2) // n1 and n2/2 of five
	b.wantRole(Candidate)
	reborn := Peer{ID: "n2", Incarnation: 200}
	m := MembershipAt{ID: LogID{Term: 1, Index: 8}, Membership: NewMembership(member(1), reborn, member(6))}
	b.e.Installed(b.now, LogID{Term: 1, Index: 9}, m, SettingAt{})
	b.flush()
	b.e.VoteAnswer(b.now, &VoteResponse{From: reborn, Term: b.e.Vote().Term}) // it refuses
	b.flush()
	if b.e.Role() == Leader {
		t.Fatalf("leads in term %d of %v with its own vote alone: %v refused", b.e.Vote().Term, m.Membership, reborn)
	}
}

// Its own vote does not count for another directory under its name.
func TestOwnVoteDoesNotCountForAnotherDirectory(t *testing.T) {
	reborn := NewMembership(Peer{ID: "n1", Incarnation: 100}, member(2), member(3))
	b := restore(t, Restored{Vote: Vote{Term: 1}, Log: view(t, terms{1, 1}), Committed: LogID{}, Memberships: []MembershipAt{
		{Membership: voters(3)}, {ID: LogID{Term: 1, Index: 2}, Membership: reborn},
	}})
	b.stand()
	b.grant(2)
	if b.e.campaign != nil && !b.e.campaign.pre {
		b.grant(2)
	}
	if b.e.Role() == Leader {
		t.Fatalf("leads in %v with the vote of n2 alone", reborn)
	}
}
