package node_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/raft"
	"quorate/transport"
	"quorate/transport/memnet"
)

// silenced is a transport whose appends to one peer are lost while that is named: the peer votes for this node, and does not hear that it won.
type silenced struct {
	transport.Transport
	to   *atomic.Pointer[raft.NodeID]
	lost chan struct{}
}

func (s *silenced) Call(to raft.Peer, req transport.Request, timeout time.Duration, done func(transport.Answer)) {
	_, appends := req.(*raft.AppendRequest)
	if deaf := s.to.Load(); !appends || deaf == nil || *deaf != to.ID {
		s.Transport.Call(to, req, timeout, done)
		return
	}
	select {
	case s.lost <- struct{}{}:
	default:
	}
	// One that arrives nowhere: nobody there has that incarnation, and the answer is as late as a lost message's.
	s.Transport.Call(raft.Peer{ID: to.ID, Incarnation: to.Incarnation + 1}, req, timeout, func(a transport.Answer) {
		a.Err = transport.ErrTimeout
		done(a)
	})
}

// TestProposalsWaitForTheSuccessorToBeKnown: a leader that hands over votes for its successor, and hears only then that it leads. What its users
// ask for in between is handed on, and is not told that nobody leads; unless nobody is heard of.
func TestProposalsWaitForTheSuccessorToBeKnown(t *testing.T) {
	t.Parallel()
	for name, heard := range map[string]bool{"it is heard of": true, "it is not": false} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "n1", "n2", "n3")
			deaf, lost := &atomic.Pointer[raft.NodeID]{}, make(chan struct{}, 1)
			network := memnet.New(1)
			c.tune = func(cfg *node.Config) {
				logger := cfg.Logger
				cfg.Transport = func(self raft.Peer, boot uint64) (transport.Transport, error) {
					return &silenced{network.Join(self, boot, logger), deaf, lost}, nil
				}
			}
			c.start("n1", "n2", "n3")
			leader := c.leader()
			id, to := leader.Config().ID, c.notLeading(leader)
			deaf.Store(&id)
			ctx := within(t, 20*time.Second)
			handing := make(chan error, 1)
			go func() { handing <- leader.TransferLeadership(ctx, to) }()
			if _, err := leader.Wait(ctx, func(s node.Status) bool { return s.Role != node.RoleLeader }); err != nil {
				t.Fatal(err)
			}
			proposed := make(chan error, 1)
			go func() {
				_, err := leader.Propose(ctx, []byte("x"))
				proposed <- err
			}()
			<-lost // the successor leads
			if heard {
				deaf.Store(nil)
				if err := <-proposed; err != nil {
					t.Errorf("propose: %v", err)
				}
				if err := <-handing; err != nil {
					t.Error(err)
				}
				return
			}
			var notLeader *node.NotLeaderError
			if err := <-proposed; !errors.As(err, &notLeader) || ctx.Err() != nil {
				t.Errorf("propose: %v", err)
			}
			deaf.Store(nil)
			<-handing
		})
	}
}
