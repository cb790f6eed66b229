package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"quorate/node/raft"
)

// TestAProposalThatWasHandedOverOnceKeepsItsUnknownOutcome: whatever the next attempt comes to, the one before it may have taken effect.
func TestAProposalThatWasHandedOverOnceKeepsItsUnknownOutcome(t *testing.T) {
	for name, second := range map[string]error{
		"the node stops":          ErrStopped,
		"the leader takes less":   &TooLargeError{Size: 100, Limit: 50},
		"the session has expired": ErrSessionExpired,
	} {
		t.Run(name, func(t *testing.T) {
			n := &Node{
				cfg: Config{ElectionTimeout: time.Hour, HeartbeatInterval: time.Millisecond},
				in:  newInputs(), done: make(chan struct{}),
			}
			n.limit.Store(1000)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			answered := make(chan struct{})
			go func() { // in RaftCore's place
				defer close(answered)
				for _, err := range []error{ErrUnknownOutcome, second} {
					select {
					case r := <-n.in.api:
						r.pending.resolve(Result{}, err)
					case <-ctx.Done():
						return
					}
				}
			}()
			_, err := n.persist(ctx, raft.Entry{Kind: raft.EntryCommand, Session: 1, Sequence: 1})
			<-answered
			if !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, second) {
				t.Errorf("persist: %v", err)
			}
		})
	}
}
