package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node"
	"quorate/node/raft"
	"quorate/transport/embednats"
)

// scripted plays a leader that answers changes of the membership with one of these answers after another.
func scripted(t *testing.T, members *node.Membership, answers ...string) (admin *node.Admin, asked func() []node.MembershipChange) {
	t.Helper()
	server, err := embednats.Start(embednats.Options{Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	conn, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	changes := make(chan node.MembershipChange, 100)
	var mu sync.Mutex // guards members and answers
	serve := func(subject string, answer func(*nats.Msg) any) {
		_, err := conn.Subscribe(subject, func(m *nats.Msg) {
			mu.Lock()
			defer mu.Unlock()
			if b, err := json.Marshal(answer(m)); err == nil {
				_ = m.Respond(b)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	serve("quorate.c.status", func(*nats.Msg) any { return node.Status{ID: "n1", Serving: true} })
	serve("quorate.c.node.n1.members", func(*nats.Msg) any { return map[string]any{"result": members} })
	serve("quorate.c.node.n1.membership", func(m *nats.Msg) any {
		var change node.MembershipChange
		if err := json.Unmarshal(m.Data, &change); err != nil {
			t.Error(err)
		}
		changes <- change
		members.ID.Index++ // each time somebody else was faster
		if len(answers) == 0 {
			return map[string]any{"result": raft.LogID{Term: 1, Index: 9}}
		}
		answer := json.RawMessage(answers[0])
		answers = answers[1:]
		return answer
	})
	return node.NewAdmin(conn, "quorate", "c"), func() (all []node.MembershipChange) {
		for range len(changes) {
			all = append(all, <-changes)
		}
		return all
	}
}

func TestAChangeOfMembersIsPlannedAnewWhenTheMomentWasWrong(t *testing.T) {
	members := node.Membership{ID: raft.LogID{Term: 1, Index: 5}, Voters: []raft.NodeID{"n1", "n2"}}
	admin, asked := scripted(t, &members,
		`{"code":"membership-changed","error":"changed","details":{"Current":{"Term":1,"Index":6}}}`,
		`{"code":"change-pending","error":"another change"}`, `{"code":"lost","error":"overwritten"}`,
		`{"code":"unknown-outcome","error":"unknown"}`, `{"code":"not-leader","error":"not leader","details":{"Leader":"n2"}}`)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := changeMembers(ctx, admin, false, func(m node.Membership) (node.MembershipChange, error) { return added(m, "n3", false) })
	if err != nil {
		t.Fatal(err)
	}
	changes := asked()
	for i, change := range changes {
		if len(changes) != 6 || change.If == nil || change.If.Index != 5+uint64(i) || len(change.Voters) != 3 {
			t.Fatalf("of %d changes, number %d was %+v", len(changes), i, change)
		}
	}
}

func TestAChangeOfMembersThatIsRefusedIsNotTriedAgain(t *testing.T) {
	members := node.Membership{Voters: []raft.NodeID{"n1", "n2"}}
	admin, asked := scripted(t, &members, `{"code":"quorum-at-risk","error":"it would lose the quorum","details":{"Silent":["n3"]}}`)
	_, err := changeMembers(t.Context(), admin, false, func(m node.Membership) (node.MembershipChange, error) { return added(m, "n3", false) })
	if status := exitStatus(t.Context(), memberStatus(err)); status != statusFalse || len(asked()) != 1 {
		t.Fatalf("exit status %d: %v", status, err)
	}
}

// Who shall go and has gone, after a try whose outcome was not known, is no mistake of the operator's.
func TestARemovalThatIsFoundDoneIsDone(t *testing.T) {
	members := node.Membership{Voters: []raft.NodeID{"n1", "n2", "n3"}}
	admin, asked := scripted(t, &members, `{"code":"unknown-outcome","error":"unknown"}`)
	first := true
	after, err := changeMembers(t.Context(), admin, false, func(m node.Membership) (node.MembershipChange, error) {
		if !first {
			m.Voters = without(m.Voters, "n3")
		}
		first = false
		return removed(m, []raft.NodeID{"n3"}, false, false)
	})
	if err != nil || len(asked()) != 1 || len(after.Voters) == 0 {
		t.Fatalf("%+v %v", after, err)
	}
}

func TestAChangeOfMembersEndsWithItsTime(t *testing.T) {
	members := node.Membership{Voters: []raft.NodeID{"n1"}}
	pending := `{"code":"change-pending","error":"another change is under way"}`
	admin, _ := scripted(t, &members, pending, pending, pending, pending, pending, pending, pending, pending, pending, pending)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := changeMembers(ctx, admin, false, func(m node.Membership) (node.MembershipChange, error) { return added(m, "n2", true) })
	if status := exitStatus(t.Context(), memberStatus(err)); status != statusUnavailable {
		t.Fatalf("exit status %d: %v", status, err)
	}
}

// TestPlansThatWouldSurprise: a replacement that would leave a voter fewer, and a removal of all, are refused; what is done already is done.
func TestPlansThatWouldSurprise(t *testing.T) {
	m := node.Membership{Voters: []raft.NodeID{"n1", "n2", "n3"}, Learners: []raft.NodeID{"n5"}}
	for _, c := range []struct {
		name string
		plan func(m node.Membership, ids []raft.NodeID, learner, retain bool) (node.MembershipChange, error)
		ids  []raft.NodeID
		says string // or no error
		want string
	}{
		{"replace by a new node", replaced, []raft.NodeID{"n1", "n4"}, "", "[n2 n3 n4] [n5]"},
		{"replace by a learner", replaced, []raft.NodeID{"n1", "n5"}, "", "[n2 n3 n5] []"},
		{"replaced already", replaced, []raft.NodeID{"n9", "n2"}, "", "[n1 n2 n3] [n5]"},
		{"replace by a voter", replaced, []raft.NodeID{"n1", "n2"}, "votes already", ""},
		{"replace by itself", replaced, []raft.NodeID{"n1", "n1"}, "votes already", ""},
		{"replace nobody", replaced, []raft.NodeID{"n9", "n4"}, "no voter", ""},
		{"remove all voters", removed, []raft.NodeID{"n1", "n2", "n3"}, "no voter would be left", ""},
		{"remove one", removed, []raft.NodeID{"n1"}, "", "[n2 n3] [n5]"},
	} {
		change, err := c.plan(m, c.ids, false, false)
		var usage *usageError
		if c.says != "" {
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if got := fmt.Sprint(change.Voters, " ", change.Learners); err != nil || got != c.want {
			t.Errorf("%s: %s (%v), want %s", c.name, got, err, c.want)
		}
	}
}

// A node that stays as a learner has what its command wants, also when that is given again, by an operator or after a try whose outcome was not
// known: it must not be removed altogether then.
func TestARetainedNodeStaysWhenTheCommandIsGivenAgain(t *testing.T) {
	members := node.Membership{Voters: []raft.NodeID{"n1", "n2", "n3"}}
	admin, asked := scripted(t, &members, `{"code":"unknown-outcome","error":"unknown"}`)
	first := true
	_, err := changeMembers(t.Context(), admin, false, func(m node.Membership) (node.MembershipChange, error) {
		if !first {
			m.Voters, m.Learners = without(m.Voters, "n3"), []raft.NodeID{"n3"}
		}
		first = false
		return removed(m, []raft.NodeID{"n3"}, false, true)
	})
	changes := asked()
	if err != nil || len(changes) == 0 {
		t.Fatalf("%d changes: %v", len(changes), err)
	}
	for i, change := range changes {
		if !slices.Equal(change.Learners, []raft.NodeID{"n3"}) || len(change.Voters) != 2 {
			t.Errorf("change %d wants voters %v, learners %v", i, change.Voters, change.Learners)
		}
	}
}

// While the command waits for its turn, somebody else changes the members so that it cannot be done any more, or not all of it is done by that.
func TestAChangeOfMembersThatBecameImpossibleIsNoSuccess(t *testing.T) {
	for name, c := range map[string]struct {
		plan  func(m node.Membership, ids []raft.NodeID, learner, retain bool) (node.MembershipChange, error)
		ids   []raft.NodeID
		later node.Membership
		says  string // or it is done
		want  []raft.NodeID
	}{
		"the last voter":      {removed, []raft.NodeID{"n1"}, node.Membership{Voters: []raft.NodeID{"n1"}}, "no voter would be left", nil},
		"the new one votes":   {replaced, []raft.NodeID{"n1", "n4"}, node.Membership{Voters: []raft.NodeID{"n1", "n2", "n3", "n4"}}, "votes already", nil},
		"one of two has gone": {removed, []raft.NodeID{"n2", "n3"}, node.Membership{Voters: []raft.NodeID{"n1", "n3"}}, "", []raft.NodeID{"n1"}},
	} {
		t.Run(name, func(t *testing.T) {
			members := node.Membership{Voters: []raft.NodeID{"n1", "n2", "n3"}}
			admin, asked := scripted(t, &members, `{"code":"change-pending","error":"another change"}`)
			first := true
			_, err := changeMembers(t.Context(), admin, false, func(m node.Membership) (node.MembershipChange, error) {
				if !first {
					m = c.later
				}
				first = false
				return c.plan(m, c.ids, false, false)
			})
			changes := asked()
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("error %v after %d changes", err, len(changes))
				}
				return
			}
			if err != nil || len(changes) != 2 || !slices.Equal(changes[1].Voters, c.want) {
				t.Fatalf("%+v, %v", changes, err)
			}
		})
	}
}
