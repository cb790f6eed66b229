package node_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quorate/node"
	"quorate/node/raft"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProposalsComeBackInOrderWithTheirResults(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	leader := c.leader()
	var want []string
	var pending []*node.Pending
	for i := range 500 {
		command := fmt.Sprint("command ", i)
		want = append(want, command)
		p, err := leader.Submit([]byte(command))
		if err != nil {
			t.Fatal(err)
		}
		pending = append(pending, p)
	}
	ctx := within(t, 20*time.Second)
	var last uint64
	for i, p := range pending {
		result, err := p.Wait(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if string(result.Value) != fmt.Sprint(i+1) || result.ID.Index <= last {
			t.Fatalf("proposal %d: result %q at %v", i, result.Value, result.ID)
		}
		last = result.ID.Index
	}
	c.agree(want)
}

func TestFollowerSaysWhoLeads(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.tune = func(cfg *node.Config) { cfg.NoForwarding = true }
	c.start("n1", "n2", "n3")
	leader := c.leader().Config().ID
	for id, n := range c.nodes {
		if id == leader {
			continue
		}
		// The leader serves as soon as one follower has answered it: the other may not have heard of it yet.
		if _, err := n.Wait(within(t, 20*time.Second), func(s node.Status) bool { return s.Leader == leader }); err != nil {
			t.Fatal(err)
		}
		_, err := n.Propose(t.Context(), []byte("x"))
		var notLeader *node.NotLeaderError
		if !errors.As(err, &notLeader) || notLeader.Leader != leader {
			t.Fatalf("propose at follower %s: %v, want leader %s", id, err, leader)
		}
		if _, err = n.ReadIndex(t.Context()); !errors.As(err, &notLeader) {
			t.Fatalf("read at follower %s: %v", id, err)
		}
		if _, err = n.ChangeMembership(t.Context(), node.MembershipChange{Voters: c.members[:2]}); !errors.As(err, &notLeader) || notLeader.Leader != leader {
			t.Fatalf("change at follower %s: %v", id, err)
		}
		if err = n.TransferLeadership(t.Context(), id); !errors.As(err, &notLeader) || notLeader.Leader != leader {
			t.Fatalf("transfer at follower %s: %v", id, err)
		}
	}
}

func TestReadIndexSeesAcknowledgedWrites(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	leader := c.leader()
	for range 50 {
		result, err := leader.Propose(t.Context(), []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		index, err := leader.ReadIndex(within(t, 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if index < result.ID.Index {
			t.Fatalf("read index %d is before the acknowledged write at %v", index, result.ID)
		}
	}
}

func TestLeaderStopsAndAnotherTakesOver(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	want := []string{"before"}
	c.propose("before")
	for round := range 3 {
		old := c.leader().Config().ID
		c.stop(old)
		command := fmt.Sprint("after ", round)
		c.propose(command)
		want = append(want, command)
		c.start(old)
		c.agree(want)
	}
}

func TestRestartOfAllKeepsEverything(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint(i))
		c.propose(fmt.Sprint(i))
	}
	for _, id := range c.members {
		c.stop(id)
	}
	c.start("n3", "n2", "n1")
	c.propose("last")
	c.agree(append(want, "last"))
}

func TestSingleNodeElectsItself(t *testing.T) {
	c := newCluster(t, "n1")
	c.start("n1")
	c.propose("one")
	c.stop("n1")
	c.start("n1")
	c.propose("two")
	c.agree([]string{"one", "two"})
}

func TestMinorityRefusesReadsAndLeavesWritesUnknown(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	leader := c.leader()
	for _, id := range c.members {
		if id != leader.Config().ID {
			c.stop(id)
		}
	}
	ctx := within(t, 300*time.Millisecond)
	_, err := leader.Propose(ctx, []byte("x"))
	var notLeader *node.NotLeaderError
	if !errors.Is(err, node.ErrUnknownOutcome) && !errors.As(err, &notLeader) {
		t.Fatalf("propose without quorum: %v", err)
	}
	_, err = leader.ReadIndex(within(t, 10*time.Second))
	if !errors.As(err, &notLeader) {
		t.Fatalf("read without quorum: %v, want not leader", err)
	}
	if _, err := leader.Wait(within(t, 10*time.Second), func(s node.Status) bool { return s.Role != node.RoleLeader }); err != nil {
		t.Fatalf("leader without a quorum did not step down: %v", err)
	}
}

func TestCloseAnswersWhatWaits(t *testing.T) {
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	leader := c.leader()
	for _, id := range c.members {
		if id != leader.Config().ID {
			c.stop(id)
		}
	}
	var wg sync.WaitGroup
	errs := make([]error, 50)
	for i := range errs {
		wg.Go(func() { _, errs[i] = leader.Propose(context.Background(), []byte("x")) })
	}
	if err := leader.Close(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for i, err := range errs {
		var notLeader *node.NotLeaderError
		if !errors.Is(err, node.ErrStopped) && !errors.As(err, &notLeader) {
			t.Fatalf("proposal %d was answered with %v", i, err)
		}
	}
	if _, err := leader.Propose(context.Background(), []byte("x")); !errors.Is(err, node.ErrStopped) {
		t.Fatalf("propose after close: %v", err)
	}
	if !errors.Is(leader.Err(), node.ErrStopped) {
		t.Fatalf("Err after close: %v", leader.Err())
	}
}

// A leader whose quorum does not answer goes on writing what it is given: many proposals gather while a quorum is waited for, and no longer than
// the disk took. Nothing but that wait ends here: the timers of Raft are off.
func TestManyProposalsDoNotWaitForAQuorumThatIsFarAway(t *testing.T) {
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	leader := c.leader()
	if err := leader.Switch(within(t, 10*time.Second), node.Switches{NoTicks: true}); err != nil {
		t.Fatal(err)
	}
	for _, id := range c.members {
		if id != leader.Config().ID {
			c.stop(id)
		}
	}
	begun := leader.Status()
	const each = 100
	for round := range uint64(3) {
		for range each {
			if _, err := leader.Submit([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		want := begun.LastIndex + (round+1)*each
		if s, err := leader.Wait(within(t, 10*time.Second), func(s node.Status) bool { return s.LastIndex >= want }); err != nil {
			t.Fatalf("round %d: the leader's log ends at %d, want %d: %v", round, s.LastIndex, want, err)
		}
	}
	if s := leader.Status(); s.CommittedIndex != begun.CommittedIndex || s.Role != node.RoleLeader {
		t.Errorf("the leader without followers is %s, and committed %d to %d", s.Role, begun.CommittedIndex, s.CommittedIndex)
	}
}

func TestTooLargeCommandIsRefusedWithTheLimit(t *testing.T) {
	c := newCluster(t, "n1")
	c.start("n1")
	leader := c.leader()
	limit := leader.MaxCommandBytes()
	_, err := leader.Propose(t.Context(), make([]byte, limit+1))
	var tooLarge *node.TooLargeError
	if !errors.As(err, &tooLarge) || tooLarge.Limit != limit || tooLarge.Size != limit+1 {
		t.Fatalf("got %v, want a TooLargeError with limit %d", err, limit)
	}
	if _, err = leader.Propose(within(t, 10*time.Second), make([]byte, limit)); err != nil {
		t.Fatalf("a command at the limit: %v", err)
	}
}

func TestLargestCommandReachesFollowers(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	command := strings.Repeat("x", c.leader().MaxCommandBytes())
	c.propose(command)
	c.agree([]string{command})
}

func TestStateMachineFailureStopsTheNodeAndNotTheProgram(t *testing.T) {
	for name, fault := range map[string]func(string) error{
		"error": func(string) error { return errors.New("disk on fire") },
		"panic": func(string) error { panic("disk on fire") },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "n1")
			c.start("n1")
			n := c.leader()
			c.states["n1"].mu.Lock()
			c.states["n1"].fault = fault
			c.states["n1"].mu.Unlock()
			_, err := n.Propose(within(t, 10*time.Second), []byte("x"))
			if !errors.Is(err, node.ErrUnknownOutcome) {
				t.Fatalf("propose: %v", err)
			}
			<-n.Done()
			if err := n.Err(); err == nil || !strings.Contains(err.Error(), "disk on fire") {
				t.Fatalf("Err: %v", err)
			}
			if err := n.Close(t.Context()); err == nil {
				t.Fatal("Close hides the failure")
			}
			if s := n.Status(); s.Role != node.RoleStopped || !strings.Contains(s.Error, "disk on fire") {
				t.Fatalf("status: %+v", s)
			}
		})
	}
}

func TestAStateMachineThatFailsBetweenTwoCallsStopsItsNode(t *testing.T) {
	c := newCluster(t, "n1")
	c.start("n1")
	n := c.leader()
	c.states["n1"].mu.Lock()
	tell := c.states["n1"].tell
	c.states["n1"].mu.Unlock()
	tell(errors.New("disk on fire"))
	tell(errors.New("another"))
	select {
	case <-n.Done():
	case <-within(t, 10*time.Second).Done():
		t.Fatal("the node goes on")
	}
	if err := n.Err(); err == nil || !strings.Contains(err.Error(), "state machine: disk on fire") {
		t.Fatalf("Err: %v", err)
	}
}

func TestDirectoryOfAnotherNodeIsRefused(t *testing.T) {
	c := newCluster(t, "n1")
	c.start("n1")
	c.leader()
	c.stop("n1")
	for name, change := range map[string]func(*node.Config){
		"cluster": func(cfg *node.Config) { cfg.Cluster = "other" },
		"node":    func(cfg *node.Config) { cfg.ID, cfg.Members = "n2", []raft.NodeID{"n2"} },
	} {
		cfg := c.config("n1")
		change(&cfg)
		_, err := node.Start(t.Context(), cfg, &journal{})
		if err == nil || !strings.Contains(err.Error(), "belongs to node n1 of cluster test") {
			t.Fatalf("other %s: %v", name, err)
		}
	}
}

func TestEmptyDirectoryUnderAUsedNameIsRefused(t *testing.T) {
	t.Parallel()
	for _, wiped := range []raft.NodeID{"n1", "n3"} { // n1 is the one that would write a genesis
		t.Run(string(wiped), func(t *testing.T) {
			c := newCluster(t, "n1", "n2", "n3")
			c.start("n1", "n2", "n3")
			c.propose("one")
			c.stop(wiped)
			if err := os.RemoveAll(filepath.Join(c.dir, string(wiped))); err != nil {
				t.Fatal(err)
			}
			n, err := node.Start(t.Context(), c.config(wiped), &journal{})
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-n.Done():
			case <-within(t, 10*time.Second).Done():
				t.Fatalf("node with a lost disk goes on: %+v", n.Status())
			}
			if !errors.Is(n.Err(), node.ErrDiskLost) {
				t.Fatalf("Err: %v", n.Err())
			}
		})
	}
}

// A node that waits for its cluster to be made takes nothing, and says so at once.
func TestBeforeTheGenesisEverythingIsRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1")
	n := c.nodes["n1"]
	ctx := within(t, 20*time.Second)
	for what, call := range map[string]func() error{
		"propose": func() error { _, err := n.Propose(ctx, []byte("x")); return err },
		"read":    func() error { _, err := n.ReadIndex(ctx); return err },
		"change": func() error {
			_, err := n.ChangeMembership(ctx, node.MembershipChange{Voters: []raft.NodeID{"n1"}})
			return err
		},
		"transfer": func() error { return n.TransferLeadership(ctx, "n2") },
		"snapshot": func() error { _, err := n.Snapshot(ctx); return err },
		"barrier":  func() error { _, err := n.Barrier(ctx); return err },
		"elect":    func() error { _, err := n.Elect(ctx); return err },
	} {
		if err := call(); !errors.Is(err, node.ErrNotInitialized) {
			t.Errorf("%s: %v", what, err)
		}
	}
	cfg := c.config("n4")
	if _, err := node.Start(t.Context(), cfg, &journal{}); !errors.Is(err, node.ErrConfig) {
		t.Errorf("members without the node itself: %v", err)
	}
	// Once it is made, another list at a start changes nothing.
	c.start("n2", "n3")
	c.propose("x")
	c.stop("n3")
	c.members = []raft.NodeID{"n3", "n4"}
	c.start("n3")
	if _, err := c.nodes["n3"].WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	if got := voters(c.nodes["n3"]); got != "[n1 n2 n3]" {
		t.Error(got)
	}
}

func TestDifferentMemberListsAreRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1")
	cfg := c.config("n2")
	cfg.Members = []raft.NodeID{"n1", "n2"}
	n, err := node.Start(t.Context(), cfg, &journal{})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-n.Done():
	case <-within(t, 10*time.Second).Done():
		t.Fatal("differing lists were accepted")
	}
	if !errors.Is(n.Err(), node.ErrMembersDiffer) {
		t.Fatalf("Err: %v", n.Err())
	}
	// Started with the right list it goes on.
	c.start("n2", "n3")
	c.propose("x")
}

func TestGenesisInAnyOrderOfStarts(t *testing.T) {
	t.Parallel()
	for _, order := range [][]raft.NodeID{{"n1", "n2", "n3"}, {"n3", "n2", "n1"}, {"n2", "n3", "n1"}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			c := newCluster(t, "n1", "n2", "n3")
			for i, id := range order {
				c.start(id)
				if i == 0 {
					// The first one is stopped and started again while it waits.
					status, err := c.nodes[id].Wait(within(t, 10*time.Second), func(s node.Status) bool { return s.Role == node.RoleWaiting })
					if err != nil {
						t.Fatalf("%v %+v", err, status)
					}
					status, err = c.nodes[id].Wait(within(t, 20*time.Second), func(s node.Status) bool { return len(s.WaitingFor) == 2 })
					if err != nil {
						t.Fatalf("%v %+v", err, status)
					}
					c.stop(id)
					c.start(id)
				}
			}
			c.propose("x")
			c.agree([]string{"x"})
		})
	}
}

func TestNATSUnreachableAtStartIsWaitedFor(t *testing.T) {
	c := newCluster(t, "n1")
	port := c.server.Port()
	if err := c.server.Close(); err != nil {
		t.Fatal(err)
	}
	c.start("n1")
	if s := c.nodes["n1"].Status(); s.NATS.Connected {
		t.Fatalf("status says connected: %+v", s)
	}
	c.server = startNATS(t, port)
	c.propose("x")
}

func TestNATSGoneAtRunTimeAndBack(t *testing.T) {
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	c.propose("before")
	port := c.server.Port()
	if err := c.server.Close(); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		if status, err := n.Wait(within(t, 20*time.Second), func(s node.Status) bool {
			return !s.NATS.Connected && strings.Contains(strings.Join(s.Warnings, " "), "not connected")
		}); err != nil {
			t.Fatalf("%v %+v", err, status.NATS)
		}
	}
	c.server = startNATS(t, port)
	c.propose("after")
	c.agree([]string{"before", "after"})
}
