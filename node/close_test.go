package node_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"quorate/node"
)

// TestCloseAnswersWhoCameWhileABacklogIsApplied: whoever waits with a context that never ends must hear of it.
func TestCloseAnswersWhoCameWhileABacklogIsApplied(t *testing.T) {
	c := newCluster(t, "n1")
	c.overMemory(patient)
	c.start("n1")
	n := c.leader()
	state := c.states["n1"]
	state.mu.Lock()
	state.forgets = true
	state.mu.Unlock()
	applying, goOn := make(chan struct{}, 2), make(chan struct{})
	state.meddle(func(command string) {
		if command == "gate" || command[0] == 10 {
			applying <- struct{}{}
			<-goOn
		}
	})
	if _, err := n.Submit([]byte("gate")); err != nil {
		t.Fatal(err)
	}
	await(t, "the gate", applying)
	for i := range 100 { // one write, and several batches of Apply
		if _, err := n.Submit(bytes.Repeat([]byte{byte(i)}, 8<<10)); err != nil {
			t.Fatal(err)
		}
	}
	goOn <- struct{}{}
	await(t, "the first batch", applying)
	held := time.Now()
	ended := make(chan error, 1)
	go func() {
		_, err := n.Propose(context.Background(), []byte("late"))
		ended <- err
	}()
	waitFor(t, "a request in RaftCore's channel", func() bool { return n.Requests() > 0 })
	n.End()
	waitFor(t, "the end of this slice of applying", func() bool { return time.Since(held) > 2*node.ApplySlice })
	goOn <- struct{}{}
	if err := n.Close(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, "Propose at a node that is closed", ended)
}
