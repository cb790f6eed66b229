package memnet

import (
	"context"
	"fmt"
	"sync"
	"time"

	"quorate/node/raft"
	"quorate/transport"
)

// maxRequestBytes is what a NATS server takes by default.
const maxRequestBytes = 1 << 20

// Transport is a node's place in a Network.
type Transport struct {
	network *Network
	self    raft.Peer
	gate    *transport.Gate

	mu     sync.Mutex // guards all below
	handle func(transport.Incoming)
	closed bool
	calls  map[uint64]*call
	last   uint64
	// running are the callbacks of the node that have not returned.
	running sync.WaitGroup
}

var _ transport.Transport = (*Transport)(nil)

// call waits for its answer.
type call struct {
	done  func(transport.Answer)
	timer *time.Timer
}

// Call sends a request.
func (t *Transport) Call(to raft.Peer, req transport.Request, timeout time.Duration, done func(transport.Answer)) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		done(transport.Answer{Err: transport.ErrClosed})
		return
	}
	t.last++
	id := t.last
	t.calls[id] = &call{done: done, timer: time.AfterFunc(timeout, func() { t.answer(id, transport.Answer{Err: transport.ErrTimeout}) })}
	t.mu.Unlock()
	fail := func(err error) { time.AfterFunc(0, func() { t.answer(id, transport.Answer{Err: err}) }) }
	b, err := t.gate.Encode(nil, req)
	target := t.network.find(to)
	switch {
	case err != nil:
		fail(err)
	case len(b) > maxRequestBytes:
		fail(fmt.Errorf("a request of %d bytes is over the limit of %d", len(b), maxRequestBytes))
	case target == nil:
		fail(transport.ErrNoResponders)
	default:
		t.network.carry(t.self.ID, to.ID, func() { target.receive(t, id, b) })
	}
}

// receive takes a request to this node, and brings the answer back.
func (t *Transport) receive(sender *Transport, id uint64, b []byte) {
	back := func(b []byte) {
		t.network.carry(t.self.ID, sender.self.ID, func() {
			sender.answer(id, sender.gate.Answer(append([]byte(nil), b...), time.Now()))
		})
	}
	reply := func(message any) {
		if b, err := t.gate.Encode(nil, message); err == nil {
			back(b)
		}
	}
	handle, ok := t.begin()
	if !ok {
		sender.answer(id, transport.Answer{Err: transport.ErrNoResponders})
		return
	}
	defer t.running.Done()
	from, req, answer := t.gate.Receive(append([]byte(nil), b...)) // each copy is the receiver's own
	if answer != nil {
		reply(answer)
		return
	}
	handle(transport.Incoming{
		Request: req, From: from, Arrived: time.Now(),
		Reply:  func(r transport.Response) { reply(r) },
		Refuse: func(reason string) { reply(&transport.Refusal{Reason: reason}) },
	})
}

// begin begins a callback, unless the node does not listen.
func (t *Transport) begin() (handle func(transport.Incoming), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.handle == nil {
		return nil, false
	}
	t.running.Add(1)
	return t.handle, true
}

// answer ends a call, if it waits.
func (t *Transport) answer(id uint64, a transport.Answer) {
	t.mu.Lock()
	c := t.calls[id]
	delete(t.calls, id)
	if c != nil {
		t.running.Add(1)
	}
	t.mu.Unlock()
	if c == nil {
		return
	}
	defer t.running.Done()
	c.timer.Stop()
	c.done(a)
}

// Listen makes the node reachable.
func (t *Transport) Listen(_ context.Context, handle func(transport.Incoming)) error {
	t.mu.Lock()
	t.handle = handle
	t.mu.Unlock()
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	t.network.joined[t.self.ID] = t
	return nil
}

// SetCluster tells the cluster id.
func (t *Transport) SetCluster(id raft.ClusterID) { t.gate.SetCluster(id) }

// MaxRequestBytes is a constant.
func (t *Transport) MaxRequestBytes() int { return maxRequestBytes }

// Connected is always so.
func (t *Transport) Connected() bool { return true }

// Refused counts the messages that were refused, by reason.
func (t *Transport) Refused() map[string]uint64 { return t.gate.Refused() }

// Close leaves the network, fails the calls that wait, and waits for callbacks that run.
func (t *Transport) Close(context.Context) error {
	t.network.mu.Lock()
	if t.network.joined[t.self.ID] == t {
		delete(t.network.joined, t.self.ID)
	}
	t.network.mu.Unlock()
	t.mu.Lock()
	t.closed = true
	ids := make([]uint64, 0, len(t.calls))
	for id := range t.calls {
		ids = append(ids, id)
	}
	t.mu.Unlock()
	for _, id := range ids {
		t.answer(id, transport.Answer{Err: transport.ErrClosed})
	}
	t.running.Wait()
	return nil
}
