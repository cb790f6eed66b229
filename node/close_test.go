package node_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/raft"
	"quorate/transport"
	"quorate/transport/memnet"
)

// TestCloseAnswersWhoCameWhileABacklogIsApplied: whoever waits with a context that never ends must be answered when the node closes, also while it applies a backlog.
func TestCloseAnswersWhoCameWhileABacklogIsApplied(t *testing.T) {
	c := newCluster(t, "n1")
	network := memnet.New(1)
	c.tune = func(cfg *node.Config) {
		logger := cfg.Logger
		cfg.ElectionTimeout = 20 * time.Second
		cfg.Transport = func(self raft.Peer, boot uint64) (transport.Transport, error) {
			return network.Join(self, boot, logger), nil
		}
	}
	c.start("n1")
	n := c.leader()
	state := c.states["n1"]
	applying, goOn := make(chan struct{}, 2), make(chan struct{})
	state.mu.Lock()
	state.forgets = true
	state.fault = func(command string) error {
		if command == "gate" || command[0] == 10 {
			applying <- struct{}{}
			<-goOn
			time.Sleep(20 * time.Millisecond) // it is slow: this is more than a slice
		}
		return nil
	}
	state.mu.Unlock()
	if _, err := n.Submit([]byte("gate")); err != nil {
		t.Fatal(err)
	}
	await(t, "the gate", applying)
	for i := range 100 { // one write, and three batches of Apply
		if _, err := n.Submit(bytes.Repeat([]byte{byte(i)}, 8<<10)); err != nil {
			t.Fatal(err)
		}
	}
	goOn <- struct{}{}
	await(t, "the first batch", applying)
	ended := make(chan error, 1)
	go func() {
		_, err := n.Propose(context.Background(), []byte("late"))
		ended <- err
	}()
	waitFor(t, "a request in RaftCore's channel", func() bool { return n.Requests() > 0 })
	n.End()
	goOn <- struct{}{}
	if err := n.Close(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Log(err)
	case <-time.After(5 * time.Second):
		t.Fatal("the node is closed, and Propose still waits")
	}
}
