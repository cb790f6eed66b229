package node_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/pebblelog"
)

// writer proposes numbered commands in a session until it is stopped, and returns those that were acknowledged.
func (c *cluster) writer(at *node.Node) (stop func() []string) {
	c.t.Helper()
	session, err := at.OpenSession(within(c.t, 20*time.Second))
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	var done []string
	group.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			command := fmt.Sprintf("w%d", i)
			if _, err := session.Propose(ctx, []byte(command)); err == nil {
				done = append(done, command)
			} else if ctx.Err() == nil {
				c.t.Errorf("%s: %v", command, err)
			}
		}
	})
	var once sync.Once
	stop = func() []string {
		once.Do(func() { cancel(); group.Wait() })
		return done
	}
	c.t.Cleanup(func() { stop() })
	return stop
}

// holds checks that a node applied all commands exactly once, in order.
func (c *cluster) holds(id raft.NodeID, want []string) {
	c.t.Helper()
	var got []string
	c.applies(id, fmt.Sprintf("%d commands", len(want)), func(seen []string) bool {
		got = seen
		return len(want) == 0 || slices.Contains(got, want[len(want)-1])
	})
	seen := map[string]int{}
	for _, command := range got {
		seen[command]++
	}
	for _, command := range want {
		if seen[command] != 1 {
			c.t.Fatalf("%s applied %s %d times", id, command, seen[command])
		}
	}
}

func voters(n *node.Node) string { return fmt.Sprint(n.Membership().Voters) }

func TestMembersAreAddedReplacedAndRemovedUnderLoad(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1")
	c.start("n1")
	stop := c.writer(c.nodes["n1"])
	c.join("n2", "n3", "n4")
	ctx := within(t, 60*time.Second)

	// One to three: the new ones learn first.
	if _, err := c.nodes["n1"].ChangeMembership(ctx, node.MembershipChange{Voters: []raft.NodeID{"n1", "n2", "n3"}}); err != nil {
		t.Fatal(err)
	}
	if got := voters(c.leader()); got != "[n1 n2 n3]" {
		t.Fatal(got)
	}
	// Replace n2 by n4, asked of a follower.
	if _, err := c.nodes["n3"].ChangeMembership(ctx, node.MembershipChange{Voters: []raft.NodeID{"n1", "n3", "n4"}}); err != nil {
		t.Fatal(err)
	}
	if status, err := c.nodes["n2"].Wait(ctx, func(s node.Status) bool {
		return s.Removed && strings.Contains(strings.Join(s.Warnings, " "), "removed")
	}); err != nil {
		t.Fatalf("n2 does not hear that it was removed: %v, %+v", err, status)
	}
	// The leader removes itself, and stays as a learner; another leads.
	leader := c.leader().Config().ID
	var others []raft.NodeID
	for _, id := range []raft.NodeID{"n1", "n3", "n4"} {
		if id != leader {
			others = append(others, id)
		}
	}
	if _, err := c.leader().ChangeMembership(ctx, node.MembershipChange{Voters: others, Learners: []raft.NodeID{leader}}); err != nil {
		t.Fatal(err)
	}
	status, err := c.nodes[leader].Wait(ctx, func(s node.Status) bool { return s.Role == node.RoleLearner && s.Leader != "" && s.Leader != leader })
	if err != nil {
		t.Fatal(err, status)
	}
	want := append(stop(), c.propose("last").command())
	for _, id := range []raft.NodeID{"n1", "n3", "n4"} {
		c.holds(id, want)
	}
	// A learner restarts as a learner.
	c.stop(leader)
	c.start(leader)
	if _, err := c.nodes[leader].Wait(ctx, func(s node.Status) bool { return s.Role == node.RoleLearner && s.Leader != "" }); err != nil {
		t.Fatal(err)
	}
}

func TestChangesAreConditional(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1")
	c.start("n1")
	c.propose("x")
	c.join("n2")
	ctx := within(t, 30*time.Second)
	n := c.nodes["n1"]
	seen := n.Membership()
	id, err := n.AddLearner(ctx, "n2")
	if err != nil {
		t.Fatal(err)
	}
	if got := n.Membership(); got.ID != id || fmt.Sprint(got.Learners) != "[n2]" {
		t.Fatalf("%+v, want entry %v", got, id)
	}
	_, err = n.ChangeMembership(ctx, node.MembershipChange{Voters: []raft.NodeID{"n1", "n2"}, If: &seen.ID})
	var changed *raft.ChangedError
	if !errors.As(err, &changed) || changed.Current != id {
		t.Fatalf("%v", err)
	}
	// The same over the wire, from the learner, once it has heard that it is one.
	if _, err := c.nodes["n2"].WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = c.nodes["n2"].ChangeMembership(ctx, node.MembershipChange{Voters: []raft.NodeID{"n1", "n2"}, If: &seen.ID})
	if !errors.As(err, &changed) || changed.Current != id {
		t.Fatalf("%v", err)
	}
	if _, err := n.ChangeMembership(ctx, node.MembershipChange{Voters: []raft.NodeID{"n1", "n2"}, If: &id}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]node.MembershipChange{
		"nobody votes":   {},
		"nobody is that": {Voters: []raft.NodeID{"n1", "n2", "n9"}},
		"no name":        {Voters: []raft.NodeID{"n1", "n2", "n.9"}},
	} {
		if _, err := n.ChangeMembership(ctx, change); err == nil {
			t.Errorf("%s: done", name)
		}
	}
	var unreachable *node.UnreachableError
	if _, err := n.AddLearner(ctx, "n9"); !errors.As(err, &unreachable) || !strings.Contains(err.Error(), "--join") {
		t.Error(err)
	}
}

func TestAChangeThatWouldLoseTheQuorumIsRefusedUnlessForced(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	c.propose("x")
	leader := c.leader()
	var down raft.NodeID
	for _, id := range c.members {
		if id != leader.Config().ID {
			down = id
		}
	}
	c.stop(down)
	ctx := within(t, 30*time.Second)
	change := node.MembershipChange{Voters: []raft.NodeID{leader.Config().ID, down}}
	if _, err := leader.Wait(ctx, func(s node.Status) bool {
		return slices.ContainsFunc(s.Members, func(m node.MemberStatus) bool { return m.ID == down && !m.Reachable })
	}); err != nil {
		t.Fatal(err)
	}
	var risk *raft.QuorumAtRiskError
	if _, err := leader.ChangeMembership(ctx, change); !errors.As(err, &risk) {
		t.Fatal(err)
	}
	if fmt.Sprint(risk.Silent) != fmt.Sprintf("[%s]", down) {
		t.Fatal(risk)
	}
	// Without the one that is down it can be done.
	change.Voters = nil
	for _, id := range c.members {
		if id != down {
			change.Voters = append(change.Voters, id)
		}
	}
	if _, err := leader.ChangeMembership(ctx, change); err != nil {
		t.Fatal(err)
	}
	c.propose("y")
}

func TestTransferOfLeadership(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	stop := c.writer(c.leader())
	ctx := within(t, 30*time.Second)
	for range 5 {
		old := c.leader().Config().ID
		to := c.members[(slices.Index(c.members, old)+1)%3]
		if err := c.nodes[c.members[(slices.Index(c.members, old)+2)%3]].TransferLeadership(ctx, to); err != nil { // asked of a third
			t.Fatal(err)
		}
		if _, err := c.nodes[to].Wait(ctx, func(s node.Status) bool { return s.Serving }); err != nil {
			t.Fatal(err)
		}
	}
	leader := c.leader()
	var failed *raft.TransferError
	for _, to := range []raft.NodeID{"n9"} {
		if err := leader.TransferLeadership(ctx, to); !errors.As(err, &failed) || failed.To != to {
			t.Errorf("%v", err)
		}
	}
	if err := leader.TransferLeadership(ctx, leader.Config().ID); err != nil {
		t.Error(err)
	}
	want := append(stop(), c.propose("last").command())
	for _, id := range c.members {
		c.holds(id, want)
	}
}

// The last node that is shut down has nobody to hand over to, and does not wait for anybody. The election timeout is so long here that waiting
// for one would be seen.
func TestTheLastNodeThatIsShutDownDoesNotWaitForOthers(t *testing.T) {
	c := newCluster(t, "n1", "n2", "n3")
	c.tune = func(cfg *node.Config) { cfg.ElectionTimeout = 30 * time.Second }
	c.start("n1", "n2", "n3")
	leader := c.nodes["n1"]
	waitFor(t, "n1 to lead", func() bool {
		if stands, err := leader.Elect(within(t, 20*time.Second)); err != nil || !stands {
			return leader.Status().Serving
		}
		_, err := leader.Wait(within(t, time.Second), func(s node.Status) bool { return s.Serving })
		return err == nil
	})
	var others sync.WaitGroup
	for id := range c.nodes {
		if id != leader.Config().ID {
			others.Go(func() { _ = c.nodes[id].Close(within(t, 20*time.Second)) })
		}
	}
	others.Wait()
	begun := time.Now()
	if err := leader.Close(within(t, 20*time.Second)); err != nil {
		t.Fatalf("after %v: %v", time.Since(begun), err)
	}
}

func TestProposalsAndReadsAtFollowers(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	c.leader()
	ctx := within(t, 30*time.Second)
	for i := range 30 {
		id := c.members[i%3]
		n := c.nodes[id]
		if _, err := n.WaitLeader(ctx); err != nil {
			t.Fatal(err)
		}
		result, err := n.Propose(ctx, fmt.Appendf(nil, "x%d", i))
		if err != nil || string(result.Value) != fmt.Sprint(i+1) {
			t.Fatalf("%s: %q %v", id, result.Value, err)
		}
		reader := c.members[(i+1)%3]
		index, err := c.nodes[reader].ReadIndex(ctx)
		if err != nil || index < result.ID.Index || len(c.states[reader].seen()) != i+1 {
			t.Fatalf("%s read at index %d after a write at %d, state has %d of %d (%v)", reader, index, result.ID.Index, len(c.states[reader].seen()), i+1, err)
		}
		if result, err := n.Barrier(ctx); err != nil || result.ID.Index <= index-1 {
			t.Fatalf("barrier %v %v", result, err)
		}
		err = n.VerifyLeader(ctx)
		if leads := n.Status().Role == node.RoleLeader; leads != (err == nil) {
			t.Fatalf("%s leads: %t, verify: %v", id, leads, err)
		}
	}
}

func TestSessionsCountOnceUnderLeaderChanges(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	c.leader()
	stops := []func() []string{}
	stops = append(stops, c.writer(c.nodes["n1"])) // n1 is never stopped
	for i := range 4 {
		id := []raft.NodeID{"n2", "n3"}[i%2]
		c.stop(id)
		c.start(id)
		if _, err := c.nodes[id].WaitLeader(within(t, 20*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	want := append(stops[0](), c.propose("last").command())
	if len(want) < 10 {
		t.Fatalf("only %d writes", len(want))
	}
	for _, id := range c.members {
		c.holds(id, want)
	}
}

// TestASessionOutlivesAProposalThatWasGivenUp: its number does not hold the answers to all later ones in the table, which has room for
// so many of a session.
func TestASessionOutlivesAProposalThatWasGivenUp(t *testing.T) {
	c := newCluster(t, "n1")
	c.start("n1")
	ctx := within(t, time.Minute)
	session, err := c.leader().OpenSession(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := session.Propose(ended, []byte("given up")); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	const room, writers = 4096, 128
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range room/writers + 2 {
				if _, err := session.Propose(ctx, fmt.Appendf(nil, "%d-%d", w, i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

func TestALostDiskNeitherVotesNorCounts(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	c.propose("before")
	c.leader()
	c.stop("n2")
	if err := os.RemoveAll(filepath.Join(c.dir, "n2")); err != nil {
		t.Fatal(err)
	}
	c.start("n2")
	n2 := c.nodes["n2"]
	delete(c.nodes, "n2")
	ctx := within(t, 30*time.Second)
	select {
	case <-n2.Done():
	case <-ctx.Done():
		t.Fatal("it goes on with an empty directory")
	}
	if err := n2.Err(); !errors.Is(err, node.ErrDiskLost) || !strings.Contains(err.Error(), "quorate member replace n2") {
		t.Fatal(err)
	}
	// Added again: taken out first, then in with its new directory.
	c.propose("between")
	if _, err := c.leader().ChangeMembership(ctx, node.MembershipChange{Voters: []raft.NodeID{"n1", "n3"}}); err != nil {
		t.Fatal(err)
	}
	c.join("n2")
	if _, err := c.leader().ChangeMembership(ctx, node.MembershipChange{Voters: []raft.NodeID{"n1", "n2", "n3"}}); err != nil {
		t.Fatal(err)
	}
	c.propose("after")
	c.agree([]string{"before", "between", "after"})
	// It restarts with what it has, as a voter.
	c.stop("n2")
	c.join("n2")
	if _, err := c.nodes["n2"].Wait(ctx, func(s node.Status) bool { return s.Role == node.RoleFollower && s.Leader != "" }); err != nil {
		t.Fatal(err)
	}
}

func TestSwitchesAndTriggers(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	leader := c.leader()
	ctx := within(t, 30*time.Second)
	if stands, err := leader.Elect(ctx); err != nil || stands {
		t.Fatalf("a leader stands: %t %v", stands, err)
	}
	if err := leader.Heartbeat(ctx); err != nil {
		t.Fatal(err)
	}
	for id, n := range c.nodes {
		if n == leader {
			continue
		}
		var notLeader *node.NotLeaderError
		if err := n.Heartbeat(ctx); !errors.As(err, &notLeader) {
			t.Errorf("%s: %v", id, err)
		}
		if err := n.Switch(ctx, node.Switches{NoElections: true}); err != nil {
			t.Fatal(err)
		}
	}
	term := leader.Status().Term
	if err := leader.Switch(ctx, node.Switches{NoHeartbeats: true}); err != nil {
		t.Fatal(err)
	}
	// Nobody hears of the leader, and nobody stands: it steps down, since no quorum answers it, and nobody takes its place.
	if _, err := leader.Wait(ctx, func(s node.Status) bool { return s.Role != node.RoleLeader }); err != nil {
		t.Fatal(err)
	}
	if err := leader.Switch(ctx, node.Switches{NoElections: true}); err != nil {
		t.Fatal(err)
	}
	for id, n := range c.nodes {
		if s := n.Status(); s.Term > term+1 {
			t.Errorf("%s is in term %d, was %d", id, s.Term, term)
		}
		if stands, err := n.Elect(ctx); err != nil || stands {
			t.Errorf("%s stands although it must not: %v", id, err)
		}
	}
	for _, n := range c.nodes {
		if err := n.Switch(ctx, node.Switches{}); err != nil {
			t.Fatal(err)
		}
	}
	c.propose("x")
	if err := leader.Reload(ctx, node.Reloadable{ElectionTimeout: time.Millisecond}); !errors.Is(err, node.ErrConfig) {
		t.Errorf("%v", err)
	}
	if err := leader.Reload(ctx, node.Reloadable{HeartbeatInterval: 20 * time.Millisecond}); err != nil {
		t.Error(err)
	}
}

func TestAVoterThatIsGoneIsReplacedByAStandby(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.tune = func(cfg *node.Config) { cfg.ReplaceAfter = time.Second }
	c.start("n1", "n2", "n3")
	c.propose("x")
	c.join("n4")
	ctx := within(t, 30*time.Second)
	if _, err := c.leader().AddLearner(ctx, "n4"); err != nil {
		t.Fatal(err)
	}
	leader := c.leader()
	gone := c.notLeading(leader)
	c.stop(gone)
	if _, err := leader.Wait(ctx, func(node.Status) bool {
		m := leader.Membership()
		return len(m.Outgoing) == 0 && slices.Contains(m.Voters, "n4") && !slices.Contains(m.Voters, gone) && len(m.Voters) == 3
	}); err != nil {
		t.Fatalf("%v: %+v", err, leader.Membership())
	}
	c.propose("y")
}

// A follower that takes messages and never answers costs bounded memory, and slows nobody.
func TestAHungFollowerDoesNotSlowTheQuorum(t *testing.T) {
	c := newCluster(t, "n1", "n2", "n3")
	c.tune = func(cfg *node.Config) {
		// Memtables, of which there may be one more or less at any time, must not weigh beside what is looked for.
		log, err := pebblelog.OpenLog(filepath.Join(cfg.Dir, "log"), pebblelog.Options{Logger: cfg.Logger, MemTableBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Log = log
	}
	c.start("n1", "n2", "n3")
	c.propose("x")
	leader := c.leader()
	var hung raft.NodeID
	for _, id := range c.members {
		if id != leader.Config().ID {
			hung = id
		}
	}
	c.stop(hung)
	conn, err := c.server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var taken, bytes atomic.Int64
	if _, err := conn.Subscribe(fmt.Sprintf("quorate.test.raft.%s.>", hung), func(m *nats.Msg) {
		taken.Add(1)
		bytes.Add(int64(len(m.Data)))
	}); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, 60*time.Second)
	payload := make([]byte, 64<<10)
	const writers, writes = 8, 50
	for _, state := range c.states {
		state.mu.Lock()
		state.forgets = true
		state.mu.Unlock()
	}
	load := func() {
		var group sync.WaitGroup
		for range writers {
			group.Go(func() {
				for range writes {
					if _, err := leader.Propose(ctx, payload); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		group.Wait()
	}
	load() // what is kept of the log in memory is full now
	before := heapInUse()
	load()
	// What is just being flushed, or on its way through the NATS server in this process, is gone in a moment; what waited for the follower
	// would stay.
	const written = writers * writes * 64 << 10
	waitFor(t, fmt.Sprintf("the memory that %d bytes of writes took, %d now, to be free again", written, heapInUse()-before), func() bool {
		return heapInUse()-before <= written/4
	})
	// The others are not behind: one of them has acknowledged each write, or it would not have been committed, and its worker is not paused.
	if _, err := leader.Wait(ctx, func(s node.Status) bool {
		return slices.ContainsFunc(s.Members, func(m node.MemberStatus) bool {
			return m.ID != hung && m.ID != s.ID && m.Reachable && m.Matched == s.LastIndex
		})
	}); err != nil {
		t.Errorf("the follower that answers is behind: %v", err)
	}
	if limit := int64(leader.Config().MaxInFlightBytes) + 1<<20; bytes.Load() > 2*limit {
		t.Errorf("%d bytes in %d messages were sent to a follower that answers none of them", bytes.Load(), taken.Load())
	}
	// It can be removed meanwhile.
	var others []raft.NodeID
	for _, id := range c.members {
		if id != hung {
			others = append(others, id)
		}
	}
	if _, err := leader.ChangeMembership(ctx, node.MembershipChange{Voters: others}); err != nil {
		t.Fatal(err)
	}
}

// heapInUse is what is still needed.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // what finalizers gave back
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestLeadershipGoesToWhoShouldLeadMost(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	priority := map[raft.NodeID]int{"n2": 5, "n3": 2}
	c.tune = func(cfg *node.Config) { cfg.Priority = priority[cfg.ID] }
	c.start("n1", "n2", "n3")
	ctx := within(t, 30*time.Second)
	if _, err := c.nodes["n2"].Wait(ctx, func(s node.Status) bool { return s.Serving }); err != nil {
		t.Fatal(err)
	}
	c.stop("n2")
	if _, err := c.nodes["n3"].Wait(ctx, func(s node.Status) bool { return s.Serving }); err != nil {
		t.Fatal(err)
	}
	c.start("n2")
	if _, err := c.nodes["n2"].Wait(ctx, func(s node.Status) bool { return s.Serving }); err != nil {
		t.Fatal(err)
	}
}
