package raft

import (
	"testing"
	"time"
)

func TestElectStandsAtOnceButALeaderIgnoresIt(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	if !b.e.Elect(b.now) || b.e.Role() != PreCandidate {
		t.Fatal("it does not stand")
	}
	b.flush()
	b.grant(2)
	b.grant(2)
	b.wantRole(Leader)
	term := b.e.Vote().Term
	if b.e.Elect(b.now) || b.e.Role() != Leader || b.e.Vote().Term != term {
		t.Fatal("a leader that is told to stand does not ignore it")
	}
	m := voters(3)
	m.Members[0].Voter = false
	if b = newBench(t, m, terms{1}); b.e.Elect(b.now) {
		t.Fatal("a learner stands")
	}
	b = newBench(t, voters(3), terms{1})
	b.slow = true
	b.append(2, 2, LogID{Term: 1, Index: 1}, 0, 2)
	b.now = b.now.Add(2 * timeout)
	if b.e.Elect(b.now) {
		t.Fatal("who cannot write stands")
	}
}

func TestElectionsCanBeSwitchedOffAndOn(t *testing.T) {
	b := newBench(t, voters(3), terms{1})
	b.stand()
	b.e.SetElections(false)
	b.wantRole(Follower)
	b.flush()
	for range 20 {
		b.tick(timeout)
		b.wantRole(Follower)
	}
	if b.vote(2, 2, LogID{Term: 1, Index: 1}, false); !b.granted() {
		t.Error("it does not vote either")
	}
	b.e.SetElections(true)
	b.stand()
	// A leader stays one.
	b = serving(t, voters(3))
	b.e.SetElections(false)
	b.wantRole(Leader)
	b.flush()
}

func TestHeartbeatsCanBeSwitchedOffAndSentByHand(t *testing.T) {
	b := serving(t, voters(3))
	b.e.SetHeartbeats(false)
	if !b.e.Heartbeat(b.now) {
		t.Fatal("it does not say that it leads")
	}
	if out := b.flush(); !out.Replicate {
		t.Fatal("the workers are not told")
	}
	for _, target := range b.e.Replication() {
		if !target.Mute || target.Beat != 1 {
			t.Errorf("%+v", target)
		}
	}
	b.e.SetHeartbeats(true)
	if b.flush(); b.e.Replication()[0].Mute {
		t.Error("still mute")
	}
	if b = newBench(t, voters(3), nil); b.e.Heartbeat(b.now) {
		t.Error("a follower sends heartbeats")
	}
}

func TestReloadReachesTheWorkersAndTheTimers(t *testing.T) {
	b := serving(t, voters(3))
	b.e.Reload(Settings{HeartbeatInterval: 7 * time.Millisecond, ElectionTimeout: 3 * timeout})
	if out := b.flush(); !out.Replicate {
		t.Fatal("the workers are not told")
	}
	for _, target := range b.e.Replication() {
		if target.HeartbeatInterval != 7*time.Millisecond || target.Until != b.now.Add(3*timeout) {
			t.Errorf("%+v", target)
		}
	}
	b.tick(2 * timeout) // nobody answers
	b.wantRole(Leader)
	b.tick(2 * timeout)
	b.wantRole(Follower)
	if at := b.e.Deadline(); at.Before(b.now.Add(3 * timeout)) {
		t.Errorf("it stands after %v", at.Sub(b.now))
	}
}
