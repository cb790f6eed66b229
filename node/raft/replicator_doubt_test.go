package raft

import (
	"testing"
	"time"
)

// What a replicator makes of answers that cannot be what they seem.

func TestReplicatorSuspectsALogThatWentBack(t *testing.T) {
	t.Run("by a heartbeat", func(t *testing.T) {
		f := started(t, terms{1, 1, 1})
		f.wait(heartbeat)
		if p := f.conflict(f.next(true), LogID{}); p.Suspect == "" {
			t.Error("not suspected")
		}
		f.grow(1)
		f.quiet()
		f.wait(heartbeat)
		f.next(true) // it keeps its leader, but gets nothing
	})
	t.Run("by an append", func(t *testing.T) {
		// Without this the same append would go out again and again at the speed of the network.
		f := started(t, terms{1, 1, 1})
		f.grow(1)
		if p := f.conflict(f.next(false), LogID{}); p.Suspect == "" {
			t.Error("not suspected")
		}
		f.quiet()
	})
	t.Run("not by an answer that was overtaken", func(t *testing.T) {
		f := newFollow(t, terms{1, 1, 1})
		s := f.next(false)
		f.grow(1)
		f.matched(s, 3)
		late := f.next(false)
		if p := f.matched(late, 4); p.Suspect != "" {
			t.Error(p.Suspect)
		}
	})
}

func TestReplicatorCountsNoAnswerInAnothersName(t *testing.T) {
	f := started(t, terms{1})
	f.grow(1)
	s := f.next(false)
	p := f.answer(s, AppendResponse{From: Peer{ID: "n2", Incarnation: 99}, Status: AppendMatched, Matched: f.log.id(2)}, 7)
	if p.Matched.Index != 1 {
		t.Errorf("counted: %+v", p)
	}
	// It is as if there had been no answer: the entry is sent again once the peer answers.
	f.wait(heartbeat)
	f.matched(f.next(true), 1)
	if again := f.next(false); again.Lo != 2 {
		t.Errorf("then it sends %+v", again)
	}
}

func TestReplicatorIgnoresAnswersOfAnOlderTerm(t *testing.T) {
	f := newFollow(t, terms{1, 2, 3})
	f.wait(time.Millisecond)
	s := f.next(false)
	p := f.answer(s, AppendResponse{Term: 2, Status: AppendMatched, Matched: f.log.id(3)}, 7)
	if p.Matched.Index != 0 || !p.Acked.Equal(zero) {
		t.Errorf("counted: %+v", p)
	}
}

func TestReplicatorReportsANewerTerm(t *testing.T) {
	f := newFollow(t, terms{1})
	f.wait(time.Millisecond)
	p := f.answer(f.next(false), AppendResponse{Term: 5, Status: AppendRefused}, 7)
	if p.SeenTerm != 5 || !p.Acked.Equal(zero) {
		t.Errorf("got %+v", p)
	}
}

func TestReplicatorSuspectsWhoRefusesItsLeaderInItsOwnTerm(t *testing.T) {
	f := newFollow(t, terms{1})
	if p := f.answer(f.next(false), AppendResponse{Status: AppendRefused}, 7); p.Suspect == "" {
		t.Errorf("got %+v", p)
	}
}

func TestReplicatorNoticesTwoProcessesUnderOneName(t *testing.T) {
	f := started(t, terms{1}) // boot 7
	ask := func(boot uint64) Progress {
		f.Helper()
		f.wait(heartbeat)
		return f.answer(f.next(true), AppendResponse{Status: AppendMatched, Matched: f.log.id(1)}, boot)
	}
	for _, boot := range []uint64{7, 7, 8, 8, 0, 9} {
		if p := ask(boot); p.Suspect != "" {
			t.Fatalf("restarts are no reason for: %s", p.Suspect)
		}
	}
	acked := f.now
	if p := ask(7); p.Suspect == "" || !p.Acked.Equal(acked) {
		t.Errorf("boot 7 came back after 9: %+v", p)
	}
}

func TestReplicatorForgivesALateAnswerOfTheProcessBefore(t *testing.T) {
	f := started(t, terms{1})
	f.wait(heartbeat)
	late := f.next(true)
	f.wait(heartbeat)
	f.answer(f.next(true), AppendResponse{Status: AppendMatched, Matched: f.log.id(1)}, 8) // restarted
	if p := f.matched(late, 1); p.Suspect != "" {
		t.Errorf("boot 7 answered what was sent before boot 8 was seen: %s", p.Suspect)
	}
	// So for a process that was never heard before, and comes between two answers of the one that replaced it.
	f.wait(heartbeat)
	late = f.next(true)
	f.wait(heartbeat)
	f.answer(f.next(true), AppendResponse{Status: AppendMatched, Matched: f.log.id(1)}, 9)
	f.answer(late, AppendResponse{Status: AppendMatched, Matched: f.log.id(1)}, 6)
	f.wait(heartbeat)
	if p := f.answer(f.next(true), AppendResponse{Status: AppendMatched, Matched: f.log.id(1)}, 9); p.Suspect != "" {
		t.Errorf("boot 9 goes on: %s", p.Suspect)
	}
}
