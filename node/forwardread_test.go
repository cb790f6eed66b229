package node_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/raft"
	"quorate/transport"
)

// lateAnswers holds the leader's read indexes back until it is closed, as a callback that is slow to run would.
type lateAnswers struct {
	transport.Transport
	came chan struct{}
	mu   sync.Mutex
	held []func()
}

func (l *lateAnswers) Call(to raft.Peer, req transport.Request, timeout time.Duration, done func(transport.Answer)) {
	if _, ok := req.(*transport.ReadIndexRequest); ok {
		then := done
		done = func(a transport.Answer) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.held = append(l.held, func() { then(a) })
			if a.Err == nil {
				l.came <- struct{}{}
			}
		}
	}
	l.Transport.Call(to, req, timeout, done)
}

func (l *lateAnswers) Close(ctx context.Context) error {
	l.mu.Lock()
	for _, deliver := range l.held {
		deliver()
	}
	l.held = nil
	l.mu.Unlock()
	return l.Transport.Close(ctx)
}

// TestAForwardedReadIsAnsweredWhenTheNodeStops, also if the leader's answer comes while it does.
func TestAForwardedReadIsAnsweredWhenTheNodeStops(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	c.overMemory(func(*node.Config) {})
	came, inMemory := make(chan struct{}, 64), c.tune
	c.tune = func(cfg *node.Config) {
		inMemory(cfg)
		join := cfg.Transport
		cfg.Transport = func(self raft.Peer, boot uint64) (transport.Transport, error) {
			t, err := join(self, boot)
			return &lateAnswers{Transport: t, came: came}, err
		}
	}
	c.start(c.members...)
	c.fill(nil, 3)
	follower := c.nodes[c.notLeading(c.leader())]
	ended := make(chan error, 1)
	go func() {
		_, err := follower.ReadIndex(context.Background())
		ended <- err
	}()
	await(t, "the leader's answer", came)
	if err := follower.Close(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, "ReadIndex of a node that is closed", ended)
}

// TestAFollowersReadDoesNotWaitForALeaderOfThePast, who was asked and is cut off, when another one leads.
func TestAFollowersReadDoesNotWaitForALeaderOfThePast(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	network := c.overMemory(func(*node.Config) {})
	c.start(c.members...)
	c.fill(nil, 3)
	old := c.leader()
	id := old.Config().ID
	follower := c.nodes[c.notLeading(old)]
	c.cut(network, id)
	ended := make(chan error, 1)
	go func() {
		_, err := follower.ReadIndex(context.Background())
		ended <- err
	}()
	s, err := follower.Wait(within(t, 20*time.Second), func(s node.Status) bool { return s.Leader != "" && s.Leader != id })
	if err != nil {
		t.Fatalf("%v: %+v", err, s)
	}
	awaitEnd(t, "a read that the old leader was asked for", ended)
}
