package node_test

import (
	"context"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage"
)

// lasting is a journal that says that it is durable: enough for a node that is not started again.
type lasting struct{ *journal }

func (lasting) Applied() (node.Applied, error) { return node.Applied{}, nil }
func (lasting) Sync(context.Context) error     { return nil }

// loseLeadershipWhileBuilding has somebody wait for a second snapshot meanwhile, who must be answered.
func loseLeadershipWhileBuilding(t *testing.T, machine func(*journal) node.StateMachine) {
	c := newCluster(t, "n1", "n2", "n3")
	c.storingInMemory()
	c.startAs(func(_ raft.NodeID, j *journal) node.StateMachine { return machine(j) }, c.members...)
	c.fill(nil, 5)
	leader := c.leader()
	begun, goOn := c.states[leader.Config().ID].pause()
	type result struct {
		ref storage.SnapshotRef
		err error
	}
	first, second := make(chan result, 1), make(chan result, 1)
	ask := func(to chan<- result) {
		ref, err := leader.Snapshot(context.Background())
		to <- result{ref, err}
	}
	go ask(first)
	await(t, "a build", begun)
	if _, err := leader.Propose(within(t, 10*time.Second), []byte("one more")); err != nil {
		t.Fatal(err)
	}
	go ask(second)
	waitFor(t, "the second to wait behind the first", func() bool { return leader.WaitForSnapshot(t.Context()) == 1 })
	if err := leader.TransferLeadership(within(t, 20*time.Second), ""); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	r := <-first
	t.Logf("first: %+v", r)
	select {
	case r := <-second:
		if r.err == nil && r.ref.Name == "" {
			t.Fatalf("a snapshot without a name, and no error: %+v", r)
		}
		t.Logf("second: %+v", r)
	case <-time.After(10 * time.Second):
		t.Fatalf("the call for a snapshot still waits on a node that is %s", leader.Status().Role)
	}
}

func TestSnapshotAskedOfALeaderOfThePastInMemory(t *testing.T) {
	t.Parallel()
	loseLeadershipWhileBuilding(t, func(j *journal) node.StateMachine { return j })
}

func TestSnapshotAskedOfALeaderOfThePastDurable(t *testing.T) {
	t.Parallel()
	loseLeadershipWhileBuilding(t, func(j *journal) node.StateMachine { return lasting{j} })
}
