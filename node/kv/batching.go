package kv

import (
	"context"
	"math"
	"sync/atomic"

	"quorate/node/kv/kvpb"
	"quorate/telemetry"
)

// operation is one call that waits for its answer. Whoever sends it sets the result and closes done.
type operation struct {
	ctx   context.Context
	write *kvpb.Op
	read  string

	span telemetry.Span

	// state is decided between the sender, who takes a write, and the caller, who gives it up: whoever is first.
	state atomic.Int32

	done    chan struct{}
	err     error
	outcome *kvpb.OpOutcome
	version *kvpb.Version
	// source is the answer that version came in.
	source *kvpb.ReadResponse
}

// States of an operation.
const (
	stateWaiting int32 = iota
	stateTaken         // it was sent, or is about to be
	stateGivenUp       // it never will be
)

func (o *operation) take() bool   { return o.state.CompareAndSwap(stateWaiting, stateTaken) }
func (o *operation) giveUp() bool { return o.state.CompareAndSwap(stateWaiting, stateGivenUp) }

// giveBack says that nobody got what was sent.
func (o *operation) giveBack() { o.state.Store(stateWaiting) }

func (o *operation) finish(err error) {
	o.err = err
	close(o.done)
}

func (o *operation) size() int {
	if o.write != nil {
		return len(o.write.Key) + len(o.write.Value)
	}
	return len(o.read)
}

// Bounds of a message with several operations, and of how many messages are under way. A few let one be on the wire while another is
// being made; many would only make each smaller.
const (
	maxBatchOps      = 512
	maxBatchBytes    = 256 << 10
	maxBatchesFlying = 4
	// commandOverhead is what surrounds the key and value of an operation, generously.
	commandOverhead = 64
)

// maxWriteBytes is the most that a key and its value may have.
func (c *Client) maxWriteBytes() int {
	const envelope = 4096 // as the cluster itself leaves free, below the payload limit
	limit := c.nc.MaxPayload() - envelope
	if limit < 0 { // it was never connected: it is not known yet
		limit = math.MaxInt32
	}
	if leader := c.leader.Load(); leader != nil && leader.MaxCommandBytes > 0 {
		limit = min(limit, int64(min(leader.MaxCommandBytes, math.MaxInt32)))
	}
	return int(limit) - commandOverhead
}

// lane is the way of one kind of operations, writes or reads.
type lane struct {
	operations chan *operation
	// flying has a value for each message that is under way.
	flying chan struct{}
	send   func(context.Context, []*operation)
}

func newLane(send func(context.Context, []*operation)) lane {
	return lane{operations: make(chan *operation), flying: make(chan struct{}, maxBatchesFlying), send: send}
}

// submit hands an operation over and waits for its answer.
func (c *Client) submit(l *lane, o *operation) error {
	if c.ctx.Err() != nil {
		return ErrClosed
	}
	if len(l.flying) == 0 {
		select {
		case l.flying <- struct{}{}: // nobody to share a message with: the caller sends it itself
			l.send(c.ctx, []*operation{o})
			<-l.flying
			return o.err
		default:
		}
	}
	select {
	case l.operations <- o:
	case <-o.ctx.Done():
		return unavailable(o.ctx.Err())
	case <-c.ctx.Done():
		return ErrClosed
	}
	select {
	case <-o.done:
		return o.err
	case <-o.ctx.Done():
		select {
		case <-o.done: // both: the answer counts
			return o.err
		default:
		}
		if o.write == nil || o.giveUp() {
			return unavailable(o.ctx.Err())
		}
		return unknown(o.ctx.Err())
	}
}

// dispatch collects operations into messages and sends them, until the client is closed.
func (c *Client) dispatch(l *lane) {
	var left *operation // did not fit into the last message
	for {
		b := batch{most: min(maxBatchBytes, c.maxWriteBytes())}
		if left == nil {
			select {
			case left = <-l.operations:
			case <-c.ctx.Done():
				return
			}
		}
		b.add(left)
		if left = c.gather(&b, l.operations, l.flying); c.ctx.Err() != nil {
			b.fail(ErrClosed)
			if left != nil {
				left.finish(ErrClosed)
			}
			return
		}
		c.group.Go(func() {
			defer func() { <-l.flying }()
			l.send(c.ctx, b.operations)
		})
	}
}

// gather fills a message with the operations that others are asking for, and goes on doing so while maxBatchesFlying messages are under
// way. It returns when the message can leave, with an operation that did not fit, if there was one.
func (c *Client) gather(b *batch, operations <-chan *operation, flying chan<- struct{}) (left *operation) {
	more := operations
	for {
		select {
		case o := <-more:
			if b.add(o) {
				continue
			}
			left, more = o, nil
		default:
		}
		select {
		case flying <- struct{}{}:
			return left
		case o := <-more:
			if !b.add(o) {
				left, more = o, nil
			}
		case <-c.ctx.Done():
			return left
		}
	}
}

// batch is operations that will share a message.
type batch struct {
	operations []*operation
	bytes      int
	most       int // bytes, unless a single operation has more
	keys       map[string]bool
}

// add takes an operation, or returns false if it must go with the next message: this one is full, or writes the key already.
func (b *batch) add(o *operation) bool {
	size := o.size() + commandOverhead
	if len(b.operations) > 0 && (len(b.operations) == maxBatchOps || b.bytes+size > b.most) {
		return false
	}
	if o.write != nil {
		if b.keys[string(o.write.Key)] {
			return false
		}
		if b.keys == nil {
			b.keys = map[string]bool{}
		}
		b.keys[string(o.write.Key)] = true
	}
	b.operations = append(b.operations, o)
	b.bytes += size
	return true
}

func (b *batch) fail(err error) {
	for _, o := range b.operations {
		o.finish(err)
	}
}
