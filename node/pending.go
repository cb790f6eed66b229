package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"quorate/node/raft"
)

// Result is what became of a committed proposal.
type Result struct {
	// ID is the log id of the command. Its index is the command's place in the one order that all nodes share.
	ID raft.LogID
	// Value is what the state machine returned for the command.
	Value []byte
}

// outcome is what became of a proposal or a read.
type outcome struct {
	result Result
	err    error
}

// Pending is a proposal or a read on its way.
type Pending struct {
	// entry to propose; RaftCore fills in its id.
	entry raft.Entry
	id    raft.LogID
	reply chan outcome // has room for the one outcome, so that RaftCore never waits for a reader
	// then, if not nil, gets the outcome in place of reply. It must not block.
	then func(outcome)
	// trace is nil if it is not sampled.
	trace *pendingTrace
	// metrics, if not nil, get the outcome of what was sent at that time.
	metrics *metrics
	sent    time.Time
	read    bool
	// leased: the read was decided by the leader's lease.
	leased bool
}

func newPending(entry raft.Entry) *Pending {
	return &Pending{entry: entry, reply: make(chan outcome, 1)}
}

// pendings are those whose outcome was taken: their memory serves the next.
type pendings struct{ pool sync.Pool }

func (s *pendings) take(entry raft.Entry) *Pending {
	p, ok := s.pool.Get().(*Pending)
	if !ok {
		return newPending(entry)
	}
	p.entry = entry
	return p
}

// put takes one back that nobody refers to any more: its outcome is there, and was received.
func (s *pendings) put(p *Pending) {
	*p = Pending{reply: p.reply}
	s.pool.Put(p)
}

// Wait blocks until the outcome is known or the context ends. It must be called by one goroutine, and once.
func (p *Pending) Wait(ctx context.Context) (Result, error) {
	select {
	case o := <-p.reply:
		return o.result, o.err
	default:
	}
	select {
	case o := <-p.reply:
		return o.result, o.err
	case <-ctx.Done():
		return Result{}, errors.Join(ErrUnknownOutcome, ctx.Err())
	}
}

// refuse notes that it was not handed over.
func (p *Pending) refuse(err error) {
	p.metrics.decide(p, err)
	p.trace.end(Result{}, err)
}

func (p *Pending) resolve(result Result, err error) {
	p.metrics.decide(p, err)
	p.trace.end(result, err)
	o := outcome{result: result, err: err}
	if p.then != nil {
		p.then(o)
		return
	}
	p.reply <- o
}

// proposals are the commands of this node that wait to be committed and applied. It belongs to RaftCore.
type proposals struct {
	// waiting, in ascending order of index, are those of the present leadership.
	waiting []*Pending
	head    int
	// orphans are those of earlier leaderships: another leader decides about them. By index, since several
	// leaderships may have used the same.
	orphans map[uint64][]*Pending
	// bytes of the commands in waiting.
	bytes int
}

func (p *proposals) add(w *Pending) {
	if p.head > len(p.waiting)/2 { // under load there may always be somebody who waits
		n := copy(p.waiting, p.waiting[p.head:])
		clear(p.waiting[n:])
		p.waiting, p.head = p.waiting[:n], 0
	}
	p.waiting = append(p.waiting, w)
	p.bytes += len(w.entry.Data)
}

// orphan keeps what waits when leadership ends. Its outcome is known when its index is applied: it was committed
// after all, or something else stands there.
func (p *proposals) orphan() {
	for _, w := range p.waiting[p.head:] {
		if p.orphans == nil {
			p.orphans = map[uint64][]*Pending{}
		}
		p.orphans[w.id.Index] = append(p.orphans[w.id.Index], w)
	}
	p.waiting, p.head, p.bytes = nil, 0, 0
}

// applied answers whoever waits for the index of an entry that was applied.
func (p *proposals) applied(id raft.LogID, value []byte, err error) {
	if p.head < len(p.waiting) && p.waiting[p.head].id.Index == id.Index {
		w := p.waiting[p.head]
		p.waiting[p.head] = nil
		p.head++
		if p.head == len(p.waiting) {
			p.waiting, p.head = p.waiting[:0], 0
		}
		p.bytes -= len(w.entry.Data)
		w.decide(id, value, err)
	}
	if len(p.orphans) == 0 {
		return
	}
	for _, w := range p.orphans[id.Index] {
		w.decide(id, value, err)
	}
	delete(p.orphans, id.Index)
}

// decide answers a proposal by what stands in its place now.
func (w *Pending) decide(id raft.LogID, value []byte, err error) {
	switch {
	case w.id != id:
		w.resolve(Result{}, ErrLost)
	case err != nil:
		w.resolve(Result{}, err)
	default:
		w.resolve(Result{ID: id, Value: value}, nil)
	}
}

// passed answers those whose index a snapshot has passed: whether their entries are in it is not known.
func (p *proposals) passed(index uint64) {
	p.orphan()
	for at, ws := range p.orphans {
		if at > index {
			continue
		}
		for _, w := range ws {
			w.resolve(Result{}, fmt.Errorf("%w: a snapshot was installed in its place", ErrUnknownOutcome))
		}
		delete(p.orphans, at)
	}
}

// failAll answers everyone when the node stops.
func (p *proposals) failAll(cause error) {
	err := fmt.Errorf("%w: %w", ErrUnknownOutcome, cause)
	p.orphan()
	for _, ws := range p.orphans {
		for _, w := range ws {
			w.resolve(Result{}, err)
		}
	}
	p.orphans = nil
}
