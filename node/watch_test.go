package node_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/pebblelog"
)

func TestWatchTellsNothingBeforeItIsSo(t *testing.T) {
	c := newCluster(t, "n1")
	c.start("n1")
	n := c.leader()
	type sight struct {
		applied  uint64
		commands int
	}
	var seen []sight
	ctx, cancel := context.WithCancel(within(t, 30*time.Second))
	var group sync.WaitGroup
	group.Go(func() {
		_, _ = n.Wait(ctx, func(s node.Status) bool {
			if s.AppliedIndex > s.CommittedIndex || s.CommittedIndex > s.LastIndex || s.Serving && s.Leader != "n1" {
				t.Errorf("%+v", s)
			}
			seen = append(seen, sight{s.AppliedIndex, len(c.states["n1"].seen())})
			return false
		})
	})
	var indexes []uint64
	for i := range 200 {
		result, err := n.Propose(ctx, fmt.Append(nil, i))
		if err != nil {
			t.Fatal(err)
		}
		indexes = append(indexes, result.ID.Index)
	}
	cancel()
	group.Wait()
	for _, s := range seen {
		applied := 0
		for _, index := range indexes {
			if index <= s.applied {
				applied++
			}
		}
		if s.commands < applied {
			t.Fatalf("the status said that index %d was applied, %d commands, when the state had %d", s.applied, applied, s.commands)
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d changes were seen", len(seen))
	}
}

func TestWaitSaysWhatItSaw(t *testing.T) {
	c := newCluster(t, "n1")
	c.start("n1")
	c.leader()
	status, err := c.nodes["n1"].Wait(within(t, 50*time.Millisecond), func(node.Status) bool { return false })
	if !errors.Is(err, context.DeadlineExceeded) || status.Leader != "n1" || !strings.Contains(err.Error(), `leader "n1"`) {
		t.Fatalf("%v", err)
	}
}

// Who watches sees each leader that stays long enough to be seen, each change after it has happened, and the end.
func TestWatchTellsWhoLeads(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	c.leader()
	changes, stop := c.nodes["n3"].Watch()
	defer stop()
	ctx := within(t, 60*time.Second)
	see := func(leader raft.NodeID) {
		t.Helper()
		for {
			select {
			case s, ok := <-changes:
				if !ok {
					t.Fatal("the watch has ended")
				}
				if s.Leader == leader {
					return
				}
			case <-ctx.Done():
				t.Fatalf("n3 never said that %s leads: %+v", leader, c.nodes["n3"].Status())
			}
		}
	}
	for _, to := range []raft.NodeID{"n1", "n2", "n1", "n3"} {
		if err := c.leader().TransferLeadership(ctx, to); err != nil {
			t.Fatal(err)
		}
		see(to)
	}
	c.stop("n3")
	for s := range changes {
		if s.Role == node.RoleStopped {
			return
		}
	}
	t.Error("the watch ended without the end")
}

// Without ticks a node does nothing by itself, and all that it is told.
func TestWithoutTicksANodeDoesOnlyWhatItIsTold(t *testing.T) {
	c := newCluster(t, "n1", "n2", "n3")
	c.tune = func(cfg *node.Config) {
		cfg.HeartbeatInterval, cfg.ElectionTimeout = 20*time.Millisecond, 200*time.Millisecond
	}
	c.start("n1", "n2", "n3")
	c.propose("x")
	leader := c.leader()
	ctx := within(t, 60*time.Second)
	term := leader.Status().Term
	var next *node.Node
	for _, n := range c.nodes {
		if n == leader {
			continue
		}
		next = n
		if err := n.Switch(ctx, node.Switches{NoTicks: true}); err != nil {
			t.Fatal(err)
		}
	}
	// The leader falls silent, and loses its leadership with that.
	if err := leader.Switch(ctx, node.Switches{NoHeartbeats: true, NoElections: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := leader.Wait(ctx, func(s node.Status) bool { return s.Role != node.RoleLeader }); err != nil {
		t.Fatal(err)
	}
	if status, err := next.Wait(within(t, 5*200*time.Millisecond), func(s node.Status) bool { return s.Term > term || s.Role != node.RoleFollower }); err == nil {
		t.Fatalf("it stood by itself: %+v", status)
	}
	if stands, err := next.Elect(ctx); err != nil || !stands {
		t.Fatalf("told to stand: %t %v", stands, err)
	}
	if _, err := next.Wait(ctx, func(s node.Status) bool { return s.Serving }); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		if err := n.Switch(ctx, node.Switches{}); err != nil {
			t.Fatal(err)
		}
	}
	c.propose("y")
}

// brittleLog fails when it is told to.
type brittleLog struct {
	storage.LogStore
	broken atomic.Bool
}

var errBroken = errors.New("the disk is broken")

func (l *brittleLog) Write(w storage.Write) (storage.Commit, error) {
	if l.broken.Load() {
		return nil, errBroken
	}
	return l.LogStore.Write(w)
}

func TestAFailingDiskStopsTheNode(t *testing.T) {
	t.Parallel()
	for _, role := range []node.Role{node.RoleLeader, node.RoleFollower} {
		t.Run(string(role), func(t *testing.T) {
			c := newCluster(t, "n1", "n2", "n3")
			logs := map[string]*brittleLog{}
			c.tune = func(cfg *node.Config) {
				log, err := pebblelog.OpenLog(filepath.Join(c.dir, string(cfg.ID), "log"), pebblelog.Options{Logger: cfg.Logger})
				if err != nil {
					t.Fatal(err)
				}
				brittle := &brittleLog{LogStore: log}
				logs[string(cfg.ID)], cfg.Log = brittle, brittle
			}
			c.start("n1", "n2", "n3")
			c.propose("before")
			var broken *node.Node
			c.leader()
			for _, n := range c.nodes {
				if n.Status().Role == role {
					broken = n
				}
			}
			id := broken.Config().ID
			logs[string(id)].broken.Store(true)
			ctx := within(t, 20*time.Second)
			if role == node.RoleLeader {
				if _, err := broken.Propose(ctx, []byte("x")); err == nil {
					t.Fatal("acknowledged without a disk")
				}
			} else {
				c.propose("x")
			}
			select {
			case <-broken.Done():
			case <-ctx.Done():
				t.Fatal("it goes on")
			}
			if err := broken.Err(); !errors.Is(err, errBroken) {
				t.Errorf("%v", err)
			}
			if _, err := broken.Propose(ctx, []byte("y")); !errors.Is(err, node.ErrStopped) {
				t.Errorf("after that: %v", err)
			}
			delete(c.nodes, id)
			c.propose("the others go on")
		})
	}
}
