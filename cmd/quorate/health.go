package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"quorate/node"
)

// health judges a node by its status. It is safe from several goroutines.
type health struct {
	id     string
	source statusSource

	mu sync.Mutex // guards all below
	// commit and durable: how far these were when they were last seen to advance, or to have nothing to do.
	commit, durable headway
}

// statusSource is a node.
type statusSource interface {
	Status() node.Status
	Err() error
}

func newHealth(id string, source statusSource) *health { return &health{id: id, source: source} }

// Bounds of readiness: three times the longest default election timeout, and what a state machine applies in moments.
const (
	stallAfter   = 3 * time.Second
	mostNotReady = 10_000
)

// alive: the node has not failed. Whoever restarts processes asks this; a node without a leader is no reason to restart it.
func (h *health) alive() error {
	if err := h.source.Err(); err != nil {
		return fmt.Errorf("it has stopped: %w", err)
	}
	return nil
}

// ready: the node knows a leader, what it has is being committed and gets to its disk, and its state is close behind.
func (h *health) ready() error { return h.readyAt(time.Now()) }

func (h *health) readyAt(now time.Time) error {
	if err := h.alive(); err != nil {
		return err
	}
	s := h.source.Status()
	h.mu.Lock()
	defer h.mu.Unlock()
	committing := h.commit.advances(now, s.CommittedIndex, s.LastIndex)
	writing := h.durable.advances(now, s.DurableIndex, s.LastIndex)
	switch {
	case s.Leader == "":
		return errors.New("it knows no leader")
	case s.CommittedIndex > s.AppliedIndex+mostNotReady:
		return fmt.Errorf("its state is %d entries behind what is committed", s.CommittedIndex-s.AppliedIndex)
	case !writing:
		return fmt.Errorf("its disk makes no progress: entry %d is durable, %d is the newest", s.DurableIndex, s.LastIndex)
	case !committing:
		return fmt.Errorf("nothing is being committed: entry %d is, %d is the newest", s.CommittedIndex, s.LastIndex)
	}
	return nil
}

// headway is how far something was when it was last seen to advance.
type headway struct {
	index uint64
	at    time.Time
}

// advances reports whether the index has got as far as it can, or further than before within stallAfter. It is judged from one look to
// the next: whoever looks rarely sees a stall at the second look.
func (p *headway) advances(now time.Time, index, end uint64) bool {
	if index >= end || index != p.index || p.at.IsZero() {
		p.index, p.at = index, now
		return true
	}
	return now.Sub(p.at) < stallAfter
}
