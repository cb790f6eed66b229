package node_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node"
	"quorate/node/raft"
)

// leasing is a cluster of three with leases, and its leader.
func leasing(t *testing.T, lease time.Duration) (*cluster, *node.Node) {
	t.Helper()
	c := newCluster(t, "n1", "n2", "n3")
	c.start("n1", "n2", "n3")
	c.setLease(c.leader(), lease)
	return c, c.leased()
}

// leased waits until some node has a lease, and returns it.
func (c *cluster) leased() *node.Node {
	c.t.Helper()
	var found *node.Node
	waitFor(c.t, "a lease", func() bool {
		for _, n := range c.nodes {
			if _, ok := n.TryReadLease(); ok {
				found = n
			}
		}
		return found != nil
	})
	return found
}

func TestLeaseReadsTakeNoRoundToTheQuorum(t *testing.T) {
	c, leader := leasing(t, 2*time.Second)
	want := c.propose("x").ID.Index
	spy, err := nats.Connect(c.server.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(spy.Close)
	seen, err := spy.SubscribeSync("quorate.test.raft.>") // of raft, from whomever to whomever
	if err != nil {
		t.Fatal(err)
	}
	messages := func() int64 { // that the server has passed on by now
		if err := spy.Flush(); err != nil {
			t.Fatal(err)
		}
		n, _, err := seen.Pending()
		if err != nil {
			t.Fatal(err)
		}
		return int64(n)
	}
	messages() // from now on, whoever publishes
	ctx := within(t, 60*time.Second)
	const reads = 300
	count := func(read func()) (int64, time.Duration) {
		before, began := messages(), time.Now()
		for range reads {
			read()
		}
		took := time.Since(began)
		return messages() - before, took
	}
	sent, took := count(func() {
		index, leased, err := leader.ReadLease(ctx)
		if err != nil || !leased || index < want {
			t.Fatalf("index %d, leased %t, %v; want %d", index, leased, err, want)
		}
	})
	// Two followers hear a heartbeat an interval; the acknowledgement is no request, and goes elsewhere.
	if most := 4 * (int64(took/leader.Config().HeartbeatInterval) + 2); sent > most {
		t.Errorf("%d reads in %v cost %d messages, heartbeats are at most %d", reads, took, sent, most)
	}
	rounds, slower := count(func() {
		if _, err := leader.ReadIndex(ctx); err != nil {
			t.Fatal(err)
		}
	})
	if rounds < reads {
		t.Errorf("the spy saw %d messages for %d rounds to the quorum: it sees nothing", rounds, reads)
	}
	t.Logf("%d reads: %v and %d messages under the lease, %v and %d messages by rounds", reads, took, sent, slower, rounds)
	if left := leader.Status().LeaseLeft; left <= 0 || left > 2*time.Second {
		t.Errorf("the lease lasts %v more", left)
	}
	// Followers have no lease; they ask the leader.
	index, leased, err := c.nodes[c.notLeading(leader)].ReadLease(ctx)
	if err != nil || leased || index < want {
		t.Errorf("at a follower: index %d, leased %t, %v; want %d", index, leased, err, want)
	}
}

func TestBackToInstantFailoverEndsTheLease(t *testing.T) {
	t.Parallel()
	c, leader := leasing(t, someLease)
	want := c.setLease(leader, 0)
	if _, ok := leader.TryReadLease(); ok || leader.Status().LeaseLeft != 0 {
		t.Fatal("there is a lease after the cluster has agreed on instant failover")
	}
	c.wantSetting(want, c.members...)
	for id, n := range c.nodes {
		acked := c.propose(string(id))
		index, leased, err := n.ReadLease(within(t, 20*time.Second))
		if err != nil || leased || index < acked.ID.Index {
			t.Errorf("%s: index %d, leased %t, %v; want %d", id, index, leased, err, acked.ID.Index)
		}
	}
}

// staleReads looks for reads under the lease of a node that others have replaced, and returns when one of those has acknowledged a write
// and the node had time enough for a stale read.
func (c *cluster) staleReads(old *node.Node) {
	c.t.Helper()
	var replaced atomic.Bool
	var group sync.WaitGroup
	stop := make(chan struct{})
	group.Go(func() {
		tick := time.NewTicker(100 * time.Microsecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			late := replaced.Load()
			if _, ok := old.TryReadLease(); ok && late {
				c.t.Error("a read under the lease, after another leader acknowledged a write")
				return
			}
		}
	})
	defer group.Wait()
	defer close(stop)
	ctx := within(c.t, 30*time.Second)
	waitFor(c.t, "another leader to acknowledge a write", func() bool {
		for _, n := range c.nodes {
			if n == old || !n.Status().Serving {
				continue
			}
			if _, err := n.Propose(ctx, []byte("by the new leader")); err == nil {
				replaced.Store(true)
			}
		}
		return replaced.Load()
	})
	after, cancel := context.WithTimeout(ctx, 2*someLease)
	defer cancel()
	<-after.Done()
}

// The whole core of the leader stands still in one command; its users' goroutines and its workers go on.
func TestALeaderThatStandsStillServesNoStaleRead(t *testing.T) {
	t.Parallel()
	c, leader := leasing(t, someLease)
	state := c.states[leader.Config().ID]
	entered, release := make(chan struct{}), make(chan struct{})
	state.mu.Lock()
	state.fault = func(command string) error {
		if command == "stand still" {
			close(entered)
			<-release
		}
		return nil
	}
	state.mu.Unlock()
	if _, err := leader.Submit([]byte("stand still")); err != nil {
		t.Fatal(err)
	}
	<-entered
	c.staleReads(leader)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if index, leased, err := leader.ReadLease(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it answers a read while it stands still: index %d, leased %t, %v", index, leased, err)
	}
	close(release)
	want := c.propose("goes on")
	index, leased, err := leader.ReadLease(within(t, 20*time.Second))
	if err != nil || index < want.ID.Index {
		t.Errorf("index %d, leased %t, %v; want %d", index, leased, err, want.ID.Index)
	}
}

func TestALeaderThatIsCutOffServesNoStaleRead(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "n1", "n2", "n3")
	wires := map[raft.NodeID]*wire{}
	c.tune = func(cfg *node.Config) {
		w := newWire(t, strings.TrimPrefix(c.server.ClientURL(), "nats://"))
		wires[cfg.ID], cfg.URL = w, "nats://"+w.listener.Addr().String()
	}
	c.start("n1", "n2", "n3")
	c.setLease(c.leader(), someLease)
	leader := c.leased()
	wires[leader.Config().ID].cut(true)
	c.staleReads(leader)
	wires[leader.Config().ID].cut(false)
	want, ctx := c.propose("goes on"), within(t, 20*time.Second)
	if _, err := leader.WaitLeader(ctx); err != nil { // it may not have heard yet of the one that the others have
		t.Fatal(err)
	}
	index, leased, err := leader.ReadLease(ctx)
	if err != nil || index < want.ID.Index {
		t.Errorf("index %d, leased %t, %v; want %d", index, leased, err, want.ID.Index)
	}
}

// wire carries the connections of one node to NATS. While it is cut it holds back what is sent, and nobody is told.
type wire struct {
	listener net.Listener
	group    sync.WaitGroup

	mu    sync.Mutex // guards what follows
	whole *sync.Cond
	isCut bool
	ends  []net.Conn
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: listener}
	w.whole = sync.NewCond(&w.mu)
	w.group.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			w.mu.Lock()
			w.ends = append(w.ends, near, far)
			w.mu.Unlock()
			w.group.Go(func() { w.carry(near, far) })
			w.group.Go(func() { w.carry(far, near) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		w.cut(false)
		w.mu.Lock()
		for _, end := range w.ends {
			_ = end.Close()
		}
		w.mu.Unlock()
		w.group.Wait()
	})
	return w
}

func (w *wire) carry(from, to net.Conn) {
	defer func() { _ = to.Close() }()
	_, _ = io.Copy(writer(func(b []byte) (int, error) {
		w.mu.Lock()
		for w.isCut {
			w.whole.Wait()
		}
		w.mu.Unlock()
		return to.Write(b)
	}), from)
}

func (w *wire) cut(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isCut = cut
	w.whole.Broadcast()
}

type writer func([]byte) (int, error)

func (f writer) Write(b []byte) (int, error) { return f(b) }
