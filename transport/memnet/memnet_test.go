package memnet_test

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quorate/node/raft"
	"quorate/transport"
	"quorate/transport/memnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// pair is two nodes of a network; the second answers each vote request, and counts them.
type pair struct {
	network *memnet.Network
	a, b    *memnet.Transport
	to      raft.Peer
	handled atomic.Int64
	// each is told of each one that is handled, if anybody waits; nil if not.
	each atomic.Pointer[chan struct{}]
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{network: memnet.New(1), to: raft.Peer{ID: "b", Incarnation: 2}}
	p.a, p.b = p.network.Join(raft.Peer{ID: "a", Incarnation: 1}, 11, quiet), p.network.Join(p.to, 22, quiet)
	for _, n := range []*memnet.Transport{p.a, p.b} {
		n.SetCluster(raft.ClusterID{1})
		t.Cleanup(func() { _ = n.Close(t.Context()) })
	}
	if err := p.b.Listen(t.Context(), func(in transport.Incoming) {
		p.handled.Add(1)
		if each := p.each.Load(); each != nil {
			*each <- struct{}{}
		}
		in.Reply(&raft.VoteResponse{From: p.to, Term: in.Request.(*raft.VoteRequest).Term})
	}); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pair) ask(to raft.Peer, timeout time.Duration) transport.Answer {
	answers := make(chan transport.Answer, 2)
	p.a.Call(to, &raft.VoteRequest{Term: 7, Candidate: raft.Peer{ID: "a", Incarnation: 1}}, timeout, func(a transport.Answer) { answers <- a })
	return <-answers
}

func TestRequestsAreAnswered(t *testing.T) {
	p := newPair(t)
	a := p.ask(p.to, time.Minute)
	if response, ok := a.Response.(*raft.VoteResponse); !ok || response.Term != 7 || response.From != p.to || a.Boot != 22 || a.Arrived.IsZero() {
		t.Fatalf("%+v", a)
	}
	p.b.SetCluster(raft.ClusterID{2})
	var refused *transport.RefusedError
	if a := p.ask(p.to, time.Minute); !errors.As(a.Err, &refused) || p.b.Refused()[transport.ReasonCluster] != 1 {
		t.Errorf("of another cluster: %+v, %v", a, p.b.Refused())
	}
}

func TestNobodyThereIsToldAtOnceAndACutLinkIsNot(t *testing.T) {
	p := newPair(t)
	for _, nobody := range []raft.Peer{{ID: "c", Incarnation: 1}, {ID: "b", Incarnation: 9}} {
		if a := p.ask(nobody, time.Minute); !errors.Is(a.Err, transport.ErrNoResponders) {
			t.Errorf("%v: %+v", nobody, a)
		}
	}
	p.network.Cut("b", "a")
	if a := p.ask(p.to, 20*time.Millisecond); !errors.Is(a.Err, transport.ErrTimeout) || p.handled.Load() != 1 {
		t.Errorf("answer cut off: %+v, handled %d", a, p.handled.Load())
	}
	p.network.Heal()
	p.network.Cut("a", "b")
	if a := p.ask(p.to, 20*time.Millisecond); !errors.Is(a.Err, transport.ErrTimeout) || p.handled.Load() != 1 {
		t.Errorf("request cut off: %+v, handled %d", a, p.handled.Load())
	}
	p.network.Heal()
	if a := p.ask(p.to, time.Minute); a.Err != nil {
		t.Error(a.Err)
	}
	_ = p.b.Close(t.Context())
	if a := p.ask(p.to, time.Minute); !errors.Is(a.Err, transport.ErrNoResponders) {
		t.Errorf("after its end: %+v", a)
	}
}

func TestRepeatedMessagesAreHandledTwiceAndAnsweredOnce(t *testing.T) {
	p := newPair(t)
	p.network.SetFaults(memnet.Faults{Duplicate: 1, Delay: time.Millisecond})
	const calls = 50
	each := make(chan struct{}, 2*calls+1)
	p.each.Store(&each)
	for range calls {
		if a := p.ask(p.to, time.Minute); a.Err != nil {
			t.Fatal(a.Err)
		}
	}
	deadline := time.After(20 * time.Second)
	for range 2 * calls {
		select {
		case <-each:
		case <-deadline:
			t.Fatalf("handled %d times", p.handled.Load())
		}
	}
	p.network.SetFaults(memnet.Faults{Loss: 1})
	if a := p.ask(p.to, 20*time.Millisecond); !errors.Is(a.Err, transport.ErrTimeout) {
		t.Errorf("all is lost: %+v", a)
	}
}

func TestCloseAnswersWhatWaits(t *testing.T) {
	p := newPair(t)
	p.network.SetFaults(memnet.Faults{Loss: 1})
	answers := make(chan transport.Answer, 2)
	ask := func() {
		p.a.Call(p.to, &transport.PingRequest{}, time.Hour, func(a transport.Answer) { answers <- a })
	}
	ask()
	_ = p.a.Close(t.Context())
	ask()
	for range 2 {
		if a := <-answers; !errors.Is(a.Err, transport.ErrClosed) {
			t.Errorf("%+v", a)
		}
	}
}
