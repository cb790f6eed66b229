package node_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/raft"
)

// stagingJournal prepares a restore, and is done with it when the node ends.
type stagingJournal struct {
	*journal
	staging   chan struct{}
	discarded *atomic.Int64
}

func (s stagingJournal) Stage(ctx context.Context, _ node.SnapshotMeta, r io.Reader) (node.Staged, error) {
	if _, err := io.ReadAll(r); err != nil {
		return nil, err
	}
	s.staging <- struct{}{}
	<-ctx.Done()
	return readyJournal{s.discarded}, nil // it was done just then
}

type readyJournal struct{ discarded *atomic.Int64 }

func (s readyJournal) Install() error { return errors.New("installed on a node that is closed") }
func (s readyJournal) Discard() error { s.discarded.Add(1); return nil }

// TestAStagedStateIsDiscardedWhenTheNodeCloses: exactly one of its methods is called, once, also of what is ready just then.
func TestAStagedStateIsDiscardedWhenTheNodeCloses(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	network := c.storingInMemory()
	machines := map[raft.NodeID]stagingJournal{}
	c.startAs(func(id raft.NodeID, j *journal) node.StateMachine {
		machines[id] = stagingJournal{j, make(chan struct{}, 8), &atomic.Int64{}}
		return machines[id]
	}, c.members...)
	want := c.fill(nil, 5)
	late := c.notLeading(c.leader())
	c.cutOff(network, late, want)
	network.Heal()
	await(t, "staging", machines[late].staging)
	if err := c.nodes[late].Close(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if n := machines[late].discarded.Load(); n != 1 {
		t.Fatalf("the node is closed, and the state that was ready was discarded %d times", n)
	}
}
