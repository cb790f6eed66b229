package sim

import (
	"errors"
	"time"

	"quorate/node/raft"
)

// worker is a replication worker: it holds a replicator, reads the log, sends, and reports progress.
type worker struct {
	p          *process
	newest     raft.Target
	replicator *raft.Replicator
	latest     raft.Progress
	// ending: it was told to stop; stopped: it has. In between it may still read the log, which is not its leader's any more.
	ending, stopped bool
	timer           int
	reporting       bool
}

// replicate starts a worker for each new target, stops those that serve nobody any more, and tells the others the newest.
func (p *process) replicate() {
	targets := p.engine.Replication()
	kept := p.workers[:0:0]
	for _, k := range p.workers {
		k.ending = true
		for _, t := range targets {
			if t.Worker == k.newest.Worker {
				k.ending = false
				k.update(t)
				kept = append(kept, k)
			}
		}
		if k.ending {
			p.w.after(p.w.between(0, time.Millisecond), func() { k.stopped = true })
		}
	}
	for _, t := range targets {
		known := false
		for _, k := range kept {
			known = known || k.newest.Worker == t.Worker
		}
		if known {
			continue
		}
		k := &worker{p: p, newest: t, replicator: raft.NewReplicator(p.w.plan.replicator, t, p.time())}
		kept = append(kept, k)
		k.soon(k.pump)
	}
	p.workers = kept
}

// soon does something when the worker's goroutine gets to it, unless it has ended by then.
func (k *worker) soon(do func()) {
	p := k.p
	life := p.life
	at := max(p.w.now+p.w.between(0, 100*time.Microsecond), p.frozen)
	p.w.after(at-p.w.now, func() {
		if p.life != life || k.stopped {
			return
		}
		if p.w.now < p.frozen {
			k.soon(do)
			return
		}
		do()
	})
}

// update tells the newest target. The channel holds one value, so a late one never replaces a newer one.
func (k *worker) update(t raft.Target) {
	k.newest = t
	k.soon(func() {
		k.replicator.Update(k.newest)
		k.pump()
	})
}

// pump sends what there is to send.
func (k *worker) pump() {
	w := k.p.w
	if unsure := k.newest.Snapshot.Last.Index > k.replicator.Progress().Matched.Index; unsure && !w.healed && w.chance(0.03) {
		k.replicator.Purged(k.newest.Snapshot.Last) // as if it had read again what was just purged: the peer may have it
	}
	for n := 0; ; n++ {
		s, ok := k.replicator.Next(k.p.time())
		if !ok {
			break
		}
		if !k.send(s) {
			break
		}
		if n > 1000 {
			w.fail("n%d: worker for %v sends without end", k.p.index+1, k.newest.Peer)
			return
		}
	}
	w.oracle.replicator(k)
	if progress := k.replicator.Progress(); progress != k.latest {
		k.latest = progress
		k.report()
	}
	wait := k.p.until(k.replicator.Deadline())
	if wait <= 0 {
		w.fail("n%d: worker for %v wants to be called again at once, for ever", k.p.index+1, k.newest.Peer)
		return
	}
	k.timer++
	timer := k.timer
	w.after(wait, func() {
		if k.timer == timer {
			k.soon(k.pump)
		}
	})
}

func (k *worker) send(s raft.Send) bool {
	p := k.p
	if s.Install {
		p.w.happened(snapshotOffered)
		k.replicator.Sent(p.time(), s, s.Snapshot.Last, s.Snapshot.Last, 0)
		k.call(s.ID, &raft.InstallRequest{Term: k.newest.Term, Leader: p.self, Snapshot: s.Snapshot})
		return true
	}
	req := &raft.AppendRequest{
		Term: k.newest.Term, Leader: p.self, Prev: s.Matched, Commit: s.Commit, Successors: k.newest.Successors,
		Snapshot: k.newest.SnapshotKnown,
	}
	last, bytes := s.Matched, 0
	if !s.Heartbeat {
		term, err := p.disk.Term(s.Prev)
		if err == nil {
			req.Entries, err = p.disk.read(s.Lo, s.Hi, s.MaxBytes)
		}
		if errors.Is(err, raft.ErrPurged) {
			k.replicator.Purged(p.disk.visible.purged)
			return true
		}
		if err != nil {
			if !k.ending {
				p.w.fail("n%d: worker for %v: %w", p.index+1, k.newest.Peer, err)
			}
			k.replicator.Unsendable()
			return false
		}
		req.Prev = raft.LogID{Term: term, Index: s.Prev}
		if k.replicator.Foreign(req.Prev, req.Entries) {
			if !k.ending {
				p.w.fail("n%d: worker for %v reads %v in term %d", p.index+1, k.newest.Peer, req.Entries, k.newest.Term)
			}
			k.replicator.Unsendable()
			return false
		}
		last = req.Entries[len(req.Entries)-1].ID
		for i := range req.Entries {
			bytes += entrySize(req.Entries[i])
		}
	}
	k.replicator.Sent(p.time(), s, req.Prev, last, bytes)
	k.call(s.ID, req)
	return true
}

func (k *worker) call(id uint64, req any) {
	k.p.w.net.call(k.p, k.newest.Peer, req, 2*k.p.w.plan.engine.ElectionTimeout, func(a answer) {
		k.soon(func() { k.answered(id, a) })
	})
}

func (k *worker) answered(id uint64, a answer) {
	response, ok := a.response.(*raft.AppendResponse)
	if !ok {
		k.replicator.Failed(id)
	} else {
		if response.Status == raft.AppendConflict {
			k.p.w.happened(conflictFound)
		}
		_, err := k.replicator.Answered(id, response, a.boot, k.p.disk)
		if err != nil {
			k.replicator.Unsendable()
			if !k.ending {
				k.p.w.fail("n%d: worker for %v: %w", k.p.index+1, k.newest.Peer, err)
			}
		}
	}
	k.pump()
}

// report hands the newest progress to the core, sometimes late: the goroutine may wait for a processor. A worker that was
// stopped meanwhile still has its word.
func (k *worker) report() {
	if k.reporting {
		return
	}
	k.reporting = true
	p := k.p
	delay := p.w.between(0, 100*time.Microsecond)
	if !p.w.healed && p.w.chance(0.02) {
		delay = p.w.between(0, 2*p.w.plan.engine.ElectionTimeout)
	}
	life := p.life
	p.w.after(delay, func() {
		k.reporting = false
		if p.life == life {
			p.inbox.progress = append(p.inbox.progress, k.latest)
			p.wake()
		}
	})
}
