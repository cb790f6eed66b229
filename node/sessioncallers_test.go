package node_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quorate/node"
)

// TestManyCallersOfOneSession: many callers at a time share a session: none of them is told that it has expired.
func TestManyCallersOfOneSession(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1")
	c.overMemory(patient)
	c.start("n1")
	n := c.leader()
	session, err := n.OpenSession(within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	gate := make(chan struct{})
	c.states["n1"].meddle(func(command string) {
		if command == "gate" {
			<-gate
		}
	})
	if _, err := n.Submit([]byte("gate")); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var expired, failed atomic.Int64
	for i := range 4300 {
		group.Go(func() {
			switch _, err := session.Propose(within(t, 60*time.Second), fmt.Append(nil, i)); {
			case errors.Is(err, node.ErrSessionExpired):
				expired.Add(1)
			case err != nil:
				failed.Add(1)
			}
		})
	}
	enough, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, _ = n.Wait(enough, func(s node.Status) bool { return s.LastIndex > 4300 }) // it never is: some wait for the first ones' answers
	close(gate)
	group.Wait()
	if expired.Load() > 0 || failed.Load() > 0 {
		t.Fatalf("of 4300 proposals %d were told that the session has expired, and %d failed in another way", expired.Load(), failed.Load())
	}
	if _, err := session.Propose(within(t, 20*time.Second), []byte("and one more")); err != nil {
		t.Fatalf("afterwards: %v", err)
	}
}
