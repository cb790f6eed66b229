package node_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/raft"
	"quorate/transport"
	"quorate/transport/memnet"
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

// TestAForwardedReadIsAnsweredWhenTheNodeStops: a read at a follower is answered when the node stops, also if the leader's answer comes while it does.
func TestAForwardedReadIsAnsweredWhenTheNodeStops(t *testing.T) {
	c := newCluster(t, "n1", "n2", "n3")
	network := memnet.New(1)
	came := make(chan struct{}, 64)
	c.tune = func(cfg *node.Config) {
		logger := cfg.Logger
		cfg.Transport = func(self raft.Peer, boot uint64) (transport.Transport, error) {
			return &lateAnswers{Transport: network.Join(self, boot, logger), came: came}, nil
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
	select {
	case err := <-ended:
		t.Log(err)
	case <-time.After(5 * time.Second):
		t.Fatal("the node is closed, and ReadIndex still waits")
	}
}

// TestAFollowersReadDoesNotWaitForALeaderOfThePast: a read at a follower does not wait for a leader that is cut off when another one leads since long.
func TestAFollowersReadDoesNotWaitForALeaderOfThePast(t *testing.T) {
	c := newCluster(t, "n1", "n2", "n3")
	network := memnet.New(1)
	c.tune = func(cfg *node.Config) {
		logger := cfg.Logger
		cfg.Transport = func(self raft.Peer, boot uint64) (transport.Transport, error) {
			return network.Join(self, boot, logger), nil
		}
	}
	c.start(c.members...)
	c.fill(nil, 3)
	old := c.leader()
	id := old.Config().ID
	follower := c.nodes[c.notLeading(old)]
	for _, other := range c.members {
		network.Cut(id, other)
		network.Cut(other, id)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := follower.ReadIndex(context.Background())
		ended <- err
	}()
	s, err := follower.Wait(within(t, 20*time.Second), func(s node.Status) bool { return s.Leader != "" && s.Leader != id })
	if err != nil {
		t.Fatalf("%v: %+v", err, s)
	}
	began := time.Now()
	if _, err := follower.ReadIndex(within(t, 10*time.Second)); err != nil {
		t.Fatalf("a new read: %v", err)
	}
	select {
	case err := <-ended:
		t.Logf("%v after another one leads: %v", time.Since(began), err)
		if time.Since(began) > 10*time.Second {
			t.Fail()
		}
	case <-time.After(45 * time.Second):
		t.Fatal("it never ends")
	}
	if time.Since(began) > 10*time.Second {
		t.Fatalf("the read ended %v after another one leads", time.Since(began))
	}
}
