package node_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage"
)

// fill proposes n commands and returns all that were acknowledged so far.
func (c *cluster) fill(have []string, n int) []string {
	c.t.Helper()
	session, err := c.leader().OpenSession(within(c.t, 20*time.Second))
	if err != nil {
		c.t.Fatal(err)
	}
	for range n {
		command := fmt.Sprintf("c%d", len(have))
		if _, err := session.Propose(within(c.t, 20*time.Second), []byte(command)); err != nil {
			c.t.Fatal(err)
		}
		have = append(have, command)
	}
	return have
}

// purged waits until a node's log begins after an index.
func (c *cluster) purged(id raft.NodeID, beyond uint64) node.Status {
	c.t.Helper()
	status, err := c.nodes[id].Wait(within(c.t, 60*time.Second), func(s node.Status) bool { return s.PurgedIndex > beyond }) // a busy machine builds a large snapshot first
	if err != nil {
		c.t.Fatalf("%v: purged %d, snapshot %+v", err, status.PurgedIndex, status.Snapshot)
	}
	return status
}

func TestLogsArePurgedAndMembersThatWereAwayGetASnapshot(t *testing.T) {
	t.Parallel()
	c := newStoringCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	var want []string
	want = c.fill(want, 5)
	away := raft.NodeID("n1")
	if c.leader().Config().ID == away {
		away = "n2"
	}
	c.stop(away)
	want = c.fill(want, 200)
	for id := range c.nodes {
		status := c.purged(id, 100)
		if status.LastIndex-status.PurgedIndex > 150 {
			t.Errorf("%s keeps entries %d to %d", id, status.PurgedIndex, status.LastIndex)
		}
	}
	c.start(away)
	c.holds(away, want)
	if c.states[away].restored == 0 {
		t.Error("it had the log although that was purged")
	}
	status, err := c.nodes[away].Wait(within(t, 20*time.Second), func(s node.Status) bool { return s.Snapshot.InstalledIndex > 100 })
	if err != nil || status.Snapshot.InstallTook <= 0 {
		t.Fatalf("%v %+v", err, status.Snapshot)
	}
	// Everyone restarts from the local snapshot and the log after it.
	want = c.fill(want, 30)
	for id := range c.nodes {
		if _, err := c.nodes[id].Wait(within(t, 20*time.Second), func(s node.Status) bool {
			return s.OldestEntryAge > 0 && s.OldestEntryAge < time.Hour
		}); err != nil {
			t.Errorf("%s says that its oldest entry is %v old: %v", id, c.nodes[id].Status().OldestEntryAge, err)
		}
		c.stop(id)
		c.start(id)
	}
	want = c.fill(want, 1)
	for id := range c.nodes {
		c.holds(id, want)
		if got := c.states[id].seen(); len(got) != len(want) {
			t.Errorf("%s has %d commands, want %d", id, len(got), len(want))
		}
		if c.states[id].restored == 0 {
			t.Errorf("%s replayed a log that is purged", id)
		}
	}
}

func TestANewMemberGetsASnapshotThenTheLog(t *testing.T) {
	c := newStoringCluster(t, "n1")
	c.start("n1")
	want := c.fill(nil, 120)
	c.purged("n1", 50)
	c.join("n2", "n3")
	if _, err := c.nodes["n1"].ChangeMembership(within(t, 30*time.Second), node.MembershipChange{Voters: []raft.NodeID{"n1", "n2", "n3"}}); err != nil {
		t.Fatal(err)
	}
	want = c.fill(want, 5)
	for _, id := range []raft.NodeID{"n2", "n3"} {
		c.holds(id, want)
		// Membership that came by a snapshot, and after it, is there after a restart.
		c.stop(id)
		c.join(id)
		if got := voters(c.nodes[id]); got != "[n1 n2 n3]" {
			t.Errorf("%s restarted with voters %s", id, got)
		}
	}
	want = c.fill(want, 1)
	for id := range c.nodes {
		c.holds(id, want)
	}
}

func TestSnapshotByHandOnLeaderAndFollowerIsOneObject(t *testing.T) {
	t.Parallel()
	c := newStoringCluster(t, "n1", "n2", "n3")
	c.tune = nil
	c.start("n1", "n2", "n3")
	c.fill(nil, 20)
	ctx := within(t, 30*time.Second)
	first, err := c.leader().Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for id, n := range c.nodes {
		again, err := n.Snapshot(ctx)
		if err != nil || again != first {
			t.Errorf("%s: %+v %v, want %+v", id, again, err, first)
		}
	}
	leader := c.leader()
	if _, err := leader.Wait(ctx, func(s node.Status) bool { return s.Snapshot.Index == first.Last.Index }); err != nil {
		t.Fatal(err)
	}
	// By hand the log is purged up to the snapshot and no further.
	purged, err := leader.Purge(ctx, 1<<40)
	if err != nil || purged.Index > first.Last.Index || purged.Index == 0 {
		t.Errorf("purged up to %v, snapshot of %v: %v", purged, first.Last, err)
	}
}

func TestWithoutJetStreamTheClusterServesAndSaysSo(t *testing.T) {
	c := newCluster(t, "n1")
	c.tune = func(cfg *node.Config) { cfg.SnapshotEntries, cfg.KeepEntries = 20, 5 }
	c.start("n1")
	want := c.fill(nil, 60)
	status, err := c.nodes["n1"].Wait(within(t, 20*time.Second), func(s node.Status) bool { return s.Snapshot.Held && s.PurgedIndex > 0 })
	if err != nil || status.Snapshot.Problem != "" {
		t.Fatalf("%v: %+v", err, c.nodes["n1"].Status())
	}
	held, err := c.nodes["n1"].Snapshot(within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	want = c.fill(want, 40)
	c.holds("n1", want)
	// It comes back by itself when JetStream does.
	port := c.server.Port()
	if err := c.server.Close(); err != nil {
		t.Fatal(err)
	}
	c.server = startNATSAt(t, port, t.TempDir())
	c.fill(want, 40)
	if _, err := c.nodes["n1"].Wait(within(t, 30*time.Second), func(s node.Status) bool {
		return !s.Snapshot.Held && s.Snapshot.Index > held.Last.Index
	}); err != nil {
		t.Fatal(err, c.nodes["n1"].Status().Snapshot)
	}
}

// A crash between the two steps of an installation leaves a state that is ahead of its log: the log is discarded, and the node goes on.
func TestAStateAheadOfItsLogDiscardsTheLog(t *testing.T) {
	t.Parallel()
	c := newStoringCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	want := c.fill(nil, 5)
	away := raft.NodeID("n1")
	if c.leader().Config().ID == away {
		away = "n2"
	}
	c.stop(away)
	want = c.fill(want, 200)
	var from raft.NodeID
	for id := range c.nodes {
		c.purged(id, 100)
		from = id
	}
	c.stop(from)
	// What an installation leaves that ends after the state: the local snapshot, beside the old log.
	target := filepath.Join(c.dir, string(away), "snapshots")
	if err := os.RemoveAll(target); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(target, os.DirFS(filepath.Join(c.dir, string(from), "snapshots"))); err != nil {
		t.Fatal(err)
	}
	c.start(away, from)
	want = c.fill(want, 3)
	c.holds(away, want)
	c.holds(from, want)
}

// While a snapshot is written, however long that takes, writes are acknowledged and applied; it is named when it is complete; and who asks
// for one meanwhile gets a later one.
func TestABuildBlocksNeitherWritesNorTheNextTrigger(t *testing.T) {
	c := newStoringCluster(t, "n1")
	c.tune = nil
	c.start("n1")
	want := c.fill(nil, 10)
	n, state := c.nodes["n1"], c.states["n1"]
	ctx := within(t, 60*time.Second)
	begun, goOn := state.pause()
	type outcome struct {
		ref storage.SnapshotRef
		err error
	}
	first, second := make(chan outcome, 1), make(chan outcome, 1)
	ask := func(to chan outcome) {
		ref, err := n.Snapshot(ctx)
		to <- outcome{ref, err}
	}
	go ask(first)
	<-begun
	// The builder may be quicker than the end of the pass that began it, which publishes the status.
	if s, err := n.Wait(ctx, func(s node.Status) bool { return s.Snapshot.Building }); err != nil || s.Snapshot.Index != 0 {
		t.Errorf("while it is built: %+v, %v", s.Snapshot, err)
	}
	want = c.fill(want, 20) // each is answered by the state machine
	last := n.Status().AppliedIndex
	go ask(second)
	for range 20 { // in its turn, the second is in RaftCore's hands
		if err := n.Heartbeat(ctx); err != nil {
			t.Fatal(err)
		}
	}
	close(goOn)
	one, two := <-first, <-second
	if one.err != nil || two.err != nil || one.ref.Last.Index >= last || two.ref.Last.Index < last {
		t.Fatalf("%+v, then %+v, when %d was applied", one, two, last)
	}
	c.holds("n1", want)
}

// The log's bytes are a reason for a snapshot too, and with neither reason none is built.
func TestSnapshotsByBytesOrNotAtAll(t *testing.T) {
	for _, bytes := range []uint64{10_000, 1 << 40} {
		t.Run(fmt.Sprint(bytes), func(t *testing.T) {
			c := newStoringCluster(t, "n1")
			c.tune = func(cfg *node.Config) { cfg.SnapshotEntries, cfg.SnapshotBytes = 1<<40, bytes }
			c.start("n1")
			c.fill(nil, 5)
			n := c.leader()
			ctx := within(t, 20*time.Second)
			for range 10 {
				if _, err := n.Propose(ctx, make([]byte, 5000)); err != nil {
					t.Fatal(err)
				}
			}
			if bytes == 1<<40 {
				if s := n.Status().Snapshot; s.Index != 0 || s.Building {
					t.Errorf("%+v", s)
				}
				return
			}
			if _, err := n.Wait(ctx, func(s node.Status) bool { return s.Snapshot.Index > 0 }); err != nil {
				t.Error(err)
			}
		})
	}
}

// The membership is in every snapshot, also when its entry lies long before the last one and is purged.
func TestALaterSnapshotCarriesTheMembershipToo(t *testing.T) {
	c := newStoringCluster(t, "n1")
	c.start("n1")
	c.join("n2")
	c.leader()
	ctx := within(t, 60*time.Second)
	id, err := c.nodes["n1"].AddLearner(ctx, "n2")
	if err != nil {
		t.Fatal(err)
	}
	want := c.fill(nil, 120)
	first := c.purged("n1", id.Index).Snapshot.Index
	want = c.fill(want, 120)
	if _, err := c.nodes["n1"].Wait(ctx, func(s node.Status) bool { return s.Snapshot.Index > first && s.PurgedIndex > first }); err != nil {
		t.Fatal(err)
	}
	same := func(who raft.NodeID) {
		t.Helper()
		if m := c.nodes[who].Membership(); m.ID != id || voters(c.nodes[who]) != "[n1]" || fmt.Sprint(m.Learners) != "[n2]" {
			t.Errorf("%s has %+v, want that of entry %v", who, m, id)
		}
	}
	c.stop("n1")
	c.start("n1")
	same("n1")
	// A learner restarts as one, by the snapshot alone; and who is added now learns of it from there.
	c.purged("n2", id.Index)
	c.stop("n2")
	c.join("n2")
	same("n2")
	if _, err := c.nodes["n2"].Wait(ctx, func(s node.Status) bool { return s.Role == node.RoleLearner && s.Leader != "" }); err != nil {
		t.Fatal(err)
	}
	c.join("n3")
	c.leader()
	if _, err := c.nodes["n1"].AddLearner(ctx, "n3"); err != nil {
		t.Fatal(err)
	}
	c.holds("n3", want)
	// The snapshot says nothing of n3: that comes with the entry behind it.
	n3 := c.nodes["n3"]
	if _, err := n3.Wait(ctx, func(node.Status) bool { return fmt.Sprint(n3.Membership().Learners) == "[n2 n3]" }); err != nil {
		t.Errorf("%v: %+v", err, n3.Membership())
	}
}

func TestPurgeByHandGoesAsFarAsItIsToldAndAsIsSafe(t *testing.T) {
	c := newStoringCluster(t, "n1")
	c.tune = nil
	c.start("n1")
	c.fill(nil, 20)
	n := c.nodes["n1"]
	ctx := within(t, 20*time.Second)
	if id, err := n.Purge(ctx, 10); err != nil || id.Index != 0 {
		t.Errorf("without a snapshot: purged up to %v, %v", id, err)
	}
	ref, err := n.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c.fill(nil, 5)
	for _, step := range []struct{ upTo, want uint64 }{{7, 7}, {3, 7}, {9, 9}, {1 << 40, ref.Last.Index}} {
		id, err := n.Purge(ctx, step.upTo)
		if err != nil || id.Index != step.want || n.Status().PurgedIndex != step.want {
			t.Errorf("up to %d: purged up to %v, status says %d (%v)", step.upTo, id, n.Status().PurgedIndex, err)
		}
	}
}

// A snapshot that cannot be written costs nothing but the snapshot, however the state machine fails.
func TestAStateMachineThatCannotBeWrittenStopsNobody(t *testing.T) {
	c := newStoringCluster(t, "n1")
	c.tune = nil
	c.start("n1")
	want := c.fill(nil, 5)
	n, state := c.nodes["n1"], c.states["n1"]
	fail := func(writing func(context.Context) error) {
		state.mu.Lock()
		defer state.mu.Unlock()
		state.writing = writing
	}
	ctx := within(t, 60*time.Second)
	for what, writing := range map[string]func(context.Context) error{
		"error": func(context.Context) error { return errors.New("pages are gone") },
		"panic": func(context.Context) error { panic("pages are gone") },
	} {
		fail(writing)
		for range 20 { // who is told of it finds it in the status, always
			if _, err := n.Snapshot(ctx); err == nil || !strings.Contains(err.Error(), "pages are gone") {
				t.Fatalf("%s: %v", what, err)
			}
			if s := n.Status(); s.Snapshot.Building || !strings.Contains(s.Snapshot.Problem, "pages are gone") {
				t.Fatalf("%s: %+v", what, s.Snapshot)
			}
		}
	}
	fail(nil)
	if _, err := n.Snapshot(ctx); err != nil {
		t.Error(err)
	}
	want = c.fill(want, 5)
	c.holds("n1", want)
}

// A stop does not wait for a build that never ends, and who asked for it is told.
func TestCloseEndsABuildThatIsUnderWay(t *testing.T) {
	c := newStoringCluster(t, "n1")
	c.tune = nil
	c.start("n1")
	c.fill(nil, 5)
	n, begun := c.nodes["n1"], c.states["n1"].hang()
	asked := make(chan error, 1)
	go func() {
		_, err := n.Snapshot(within(t, 60*time.Second))
		asked <- err
	}()
	<-begun
	c.stop("n1")
	if err := <-asked; !errors.Is(err, node.ErrStopped) && !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Several nodes that need what is purged fetch one object at the same time.
func TestSeveralLearnersFetchOneObjectAtOnce(t *testing.T) {
	c := newStoringCluster(t, "n1")
	c.start("n1")
	want := c.fill(nil, 200)
	c.purged("n1", 100)
	late := []raft.NodeID{"n2", "n3", "n4"}
	c.join(late...)
	leader := c.leader()
	if _, err := leader.ChangeMembership(within(t, 20*time.Second), node.MembershipChange{Voters: []raft.NodeID{"n1"}, Learners: late}); err != nil {
		t.Fatal(err)
	}
	for _, id := range late {
		c.holds(id, want)
		if c.states[id].restored == 0 {
			t.Errorf("%s had the log although that was purged", id)
		}
		status, err := c.nodes[id].Wait(within(t, 20*time.Second), func(s node.Status) bool { return s.Snapshot.InstalledIndex > 0 })
		if err != nil {
			t.Fatal(err)
		}
		if built := leader.Status().Snapshot.Index; status.Snapshot.InstalledIndex > built {
			t.Errorf("%s installed a snapshot of %d, the leader built one of %d", id, status.Snapshot.InstalledIndex, built)
		}
	}
}
