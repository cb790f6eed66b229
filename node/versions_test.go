package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/raft"
)

// speaking starts nodes of a version. Their state machine fails at commands of a newer one, which begin with its number.
func (c *cluster) speaking(version uint32, ids ...raft.NodeID) {
	c.t.Helper()
	for _, id := range ids {
		n, err := c.startSpeaking(version, id)
		if err != nil {
			c.t.Fatal(err)
		}
		c.nodes[id] = n
		c.t.Cleanup(func() { _ = n.Close(context.Background()) })
	}
}

func (c *cluster) startSpeaking(version uint32, id raft.NodeID) (*node.Node, error) {
	state := &journal{fault: func(command string) error {
		var of uint32
		if n, _ := fmt.Sscanf(command, "v%d", &of); n == 1 && of > version {
			return fmt.Errorf("%s speaks %d and does not know %q", id, version, command)
		}
		return nil
	}}
	cfg := c.config(id)
	cfg.CommandVersion = version
	n, err := node.Start(c.t.Context(), cfg, &versioned{state})
	if err == nil {
		c.states[id] = state
	}
	return n, err
}

// versioned is a journal that takes no snapshot with commands that it does not know, and prepares one beside Apply.
type versioned struct{ *journal }

func (v *versioned) Stage(_ context.Context, _ node.SnapshotMeta, r io.Reader) (node.Staged, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	for command := range strings.Lines(string(b)) {
		if err := v.fault(command); err != nil {
			return nil, err
		}
	}
	return &stagedJournal{v.journal, b}, nil
}

func (v *versioned) Restore(ctx context.Context, meta node.SnapshotMeta, r io.Reader) error {
	staged, err := v.Stage(ctx, meta, r)
	if err != nil {
		return err
	}
	return staged.Install()
}

type stagedJournal struct {
	to       *journal
	commands []byte
}

func (s *stagedJournal) Install() error {
	return s.to.Restore(context.Background(), node.SnapshotMeta{}, bytes.NewReader(s.commands))
}
func (s *stagedJournal) Discard() error { return nil }

// wantVersion waits until nodes know that the cluster uses a version of commands.
func (c *cluster) wantVersion(want uint32, ids ...raft.NodeID) {
	c.t.Helper()
	for _, id := range ids {
		status, err := c.nodes[id].Wait(within(c.t, 20*time.Second), func(s node.Status) bool { return s.Versions.Command == want })
		if err != nil {
			c.t.Fatalf("%s: %v: versions %v in use, want commands %d", id, err, status.Versions, want)
		}
	}
}

// Three nodes are upgraded one after the other while clients write, each command in the newest form that Versions allows. All that was
// acknowledged is there, no node ever met a command that it did not know, and the new form is used when the last node has come up.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.speaking(0, c.members...)
	c.leader()
	var mu sync.Mutex // guards nodes
	nodes := map[raft.NodeID]*node.Node{}
	for id, n := range c.nodes {
		nodes[id] = n
	}
	ctx, cancel := context.WithCancel(within(t, time.Minute))
	defer cancel()
	var writers sync.WaitGroup
	acknowledged := make([][]string, 3)
	for i, id := range c.members {
		writers.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				mu.Lock()
				n := nodes[id]
				mu.Unlock()
				command := fmt.Sprintf("v%d of %s, %d", n.Versions().Command, id, k)
				if _, err := n.Propose(ctx, []byte(command)); err == nil {
					acknowledged[i] = append(acknowledged[i], command)
				}
			}
		})
	}
	for i, id := range c.members {
		c.propose("before " + string(id))
		c.stop(id)
		c.speaking(1, id)
		mu.Lock()
		nodes[id] = c.nodes[id]
		mu.Unlock()
		caught := c.propose("after " + string(id))
		c.applies(id, "what was written meanwhile", func(seen []string) bool { return len(seen) > 0 && strings.Contains(fmt.Sprint(seen), caught.text) })
		if i < 2 {
			// The leader has heard of all versions by then, and has had a heartbeat's time to make a mistake.
			leader := c.leader()
			_, err := leader.Wait(within(t, 20*time.Second), func(s node.Status) bool {
				told := 0
				for _, m := range s.Members {
					if m.Speaks != nil {
						told++
					}
				}
				return told == 3 || !s.Serving
			})
			if err != nil {
				t.Fatal(err)
			}
			if v := leader.Versions(); v != (raft.Versions{}) {
				t.Fatalf("%v are in use while %d nodes do not speak them", v, 2-i)
			}
		}
	}
	c.wantVersion(1, c.members...)
	cancel()
	writers.Wait()
	last := c.propose("v1 at last") // behind all that was acknowledged: a node that has it has them
	var first []string
	for _, id := range c.members {
		// Its state began anew with its last start, and was replayed from the log.
		c.applies(id, "the last command", func(seen []string) bool { return slices.Contains(seen, last.text) })
		seen := c.states[id].seen()
		seen = seen[:slices.Index(seen, last.text)+1] // what was given up on its way to the leader may come behind it
		if first == nil {
			first = seen
		}
		if !slices.Equal(seen, first) {
			t.Fatalf("%s applied %d commands, %s %d, not the same", id, len(seen), c.members[0], len(first))
		}
		if err := c.nodes[id].Err(); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
	}
	have := map[string]bool{}
	for _, command := range first {
		have[command] = true
	}
	for _, command := range slices.Concat(acknowledged...) {
		if !have[command] {
			t.Fatalf("%q was acknowledged, and is gone", command)
		}
	}
}

// upgraded is a cluster that uses commands of version 1.
func upgraded(c *cluster) *cluster {
	c.t.Helper()
	c.speaking(1, c.members...)
	c.wantVersion(1, c.members...)
	c.propose("v1 first")
	return c
}

// wantUpgrade waits until a node has stopped because it is too old, which its status says as well.
func (c *cluster) wantUpgrade(id raft.NodeID) {
	c.t.Helper()
	n := c.nodes[id]
	select {
	case <-n.Done():
	case <-time.After(20 * time.Second):
		c.t.Fatalf("%s goes on: %+v", id, n.Status())
	}
	if err := n.Err(); !errors.Is(err, node.ErrUpgrade) || !strings.Contains(err.Error(), "commands 1") || !strings.Contains(n.Status().Error, "upgrade this node") {
		c.t.Fatalf("%s: %v, status %q", id, err, n.Status().Error)
	}
	if seen := c.states[id].seen(); strings.Contains(fmt.Sprint(seen), "v1") {
		c.t.Fatalf("%s has %q", id, seen)
	}
	_ = n.Close(context.Background())
	delete(c.nodes, id)
}

func TestNodeThatWasDowngradedDoesNotStart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*cluster{
		"with its log": newCluster(t, "n1", "n2", "n3"), "with a local snapshot": newStoringCluster(t, "n1", "n2", "n3"),
	} {
		t.Run(name, func(t *testing.T) {
			upgraded(c)
			want := []string{"v1 first"}
			id := c.notLeading(c.leader())
			if c.tune != nil {
				want = c.fill(want, 150)
				c.purged(id, 20)
			}
			c.applies(id, "the setting", func(seen []string) bool { return len(seen) == len(want) })
			c.stop(id)
			if n, err := c.startSpeaking(0, id); !errors.Is(err, node.ErrUpgrade) || !strings.Contains(err.Error(), "commands 1") {
				if err == nil {
					_ = n.Close(context.Background())
				}
				t.Fatal(err)
			}
			want = append(want, c.propose("v1 second").text)
			c.speaking(1, id)
			if v := c.nodes[id].Versions(); c.tune != nil && v.Command != 1 { // of the state that it begins with
				t.Fatalf("it knows of %v when it has started", v)
			}
			c.agree(want)
		})
	}
}

// The setting reaches one that is too old as an entry, or, where that is purged, in a snapshot. It stops before it, and goes on from there when
// it is upgraded; the others do not care.
func TestNodeStopsWhenItMeetsAVersionThatItDoesNotSpeak(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*cluster{
		"in the log": newCluster(t, "n1", "n2", "n3"), "in a snapshot": newStoringCluster(t, "n1", "n2", "n3"),
	} {
		t.Run(name, func(t *testing.T) {
			upgraded(c)
			want := []string{"v1 first"}
			if c.tune != nil {
				want = c.fill(want, 150)
				for id := range c.nodes {
					c.purged(id, 20)
				}
			}
			tune := c.tune
			c.tune = func(cfg *node.Config) {
				if cfg.ID == "n4" {
					cfg.Members, cfg.Join = nil, true
				}
				if tune != nil {
					tune(cfg)
				}
			}
			c.speaking(0, "n4")
			if _, err := c.leader().AddLearner(within(t, 20*time.Second), "n4"); err != nil {
				t.Fatal(err)
			}
			c.wantUpgrade("n4")
			want = append(want, c.propose("v1 goes on").text)
			c.speaking(1, "n4")
			c.agree(want)
		})
	}
}
