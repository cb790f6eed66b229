package node

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/telemetry"
	"quorate/transport"
)

// worker is the replication worker of one target. It brings the target's log to agree with the leader's: it reads the
// log and sends, and writes nothing. RaftCore tells it the newest target; it tells RaftCore its progress. Neither waits for
// the other: a target channel holds the newest value only, and progress is one value that is sent when RaftCore has room.
type worker struct {
	target   chan timed[raft.Target]
	progress chan<- timed[raft.Progress]
	answers  chan appendAnswer

	replicator *raft.Replicator
	log        storage.LogReader
	transport  transport.Transport
	self       raft.Peer
	newest     raft.Target
	timeout    time.Duration
	logger     *slog.Logger
	telemetry  *telemetry.Telemetry
	sampled    *sampledEntries
	metrics    *metrics
	measured   *targetMetrics // nil if nothing is measured

	// sayAt is when to say again that the log cannot be read.
	sayAt time.Time

	report  raft.Progress
	changed bool
	// entries of the newest message, whose slice the next one uses again.
	entries []raft.Entry
}

type appendAnswer struct {
	id     uint64
	answer transport.Answer
}

// run serves the target until the context ends.
func (w *worker) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer w.measured.flying(0, 0)
	for {
		now := time.Now()
		for {
			s, ok := w.replicator.Next(now)
			if !ok {
				break
			}
			if !w.send(ctx, now, s) {
				break
			}
		}
		w.noteProgress()
		w.measured.flying(w.replicator.InFlight())
		timer.Reset(time.Until(w.replicator.Deadline()))
		var progress chan<- timed[raft.Progress]
		var report timed[raft.Progress]
		if w.changed {
			progress, report = w.progress, timed[raft.Progress]{w.report, w.metrics.now()}
		}
		select {
		case <-ctx.Done():
			return
		case t := <-w.target:
			w.metrics.waited(channelTarget, t.sent, w.metrics.now())
			w.newest = t.value
			w.replicator.Update(w.newest)
		case a := <-w.answers:
			w.answered(a)
			for range len(w.answers) {
				w.answered(<-w.answers)
			}
		case progress <- report:
			w.changed = false
		case <-timer.C:
		}
	}
}

// send makes and sends one message, and reports whether that was possible.
func (w *worker) send(ctx context.Context, now time.Time, s raft.Send) bool {
	if s.Install {
		w.replicator.Sent(now, s, s.Snapshot.Last, s.Snapshot.Last, 0)
		w.call(ctx, s.ID, &raft.InstallRequest{Term: w.newest.Term, Leader: w.self, Snapshot: s.Snapshot})
		return true
	}
	req := &raft.AppendRequest{
		Term: w.newest.Term, Leader: w.self, Prev: s.Matched, Commit: s.Commit, Successors: w.newest.Successors,
		Snapshot: w.newest.SnapshotKnown,
	}
	last, bytes := s.Matched, 0
	if !s.Heartbeat {
		term, err := w.log.Term(s.Prev)
		if err == nil {
			w.entries, err = w.log.Entries(w.entries[:0], s.Lo, s.Hi, min(s.MaxBytes, maxMessageBytes(w.transport)))
			req.Entries = w.entries
		}
		if errors.Is(err, storage.ErrPurged) {
			w.replicator.Purged(w.log.Purged())
			return true
		}
		if errors.Is(err, storage.ErrOutOfRange) {
			w.replicator.Unsendable() // truncated: leadership has ended, and this worker is about to hear of it
			return false
		}
		if err != nil {
			// The heartbeats go on, so the target keeps its leader while this one is looked into.
			w.complain(now, "cannot read the log for a target", "from", s.Lo, "error", err)
			w.replicator.Unsendable()
			return false
		}
		req.Prev = raft.LogID{Term: term, Index: s.Prev}
		if w.replicator.Foreign(req.Prev, req.Entries) {
			w.replicator.Unsendable() // leadership has ended, and this worker is about to hear of it
			return false
		}
		last = req.Entries[len(req.Entries)-1].ID
		for i := range req.Entries {
			bytes += len(req.Entries[i].Raw)
		}
	}
	w.replicator.Sent(now, s, req.Prev, last, bytes)
	w.call(ctx, s.ID, req)
	return true
}

// complainAgain is how long a worker is silent about its log after it said that it cannot be read: it tries again at each heartbeat.
const complainAgain = 10 * time.Second

func (w *worker) complain(now time.Time, message string, args ...any) {
	if now.Before(w.sayAt) {
		return
	}
	w.sayAt = now.Add(complainAgain)
	w.logger.Error(message, append(args, "target", w.newest.Peer.ID)...)
}

func (w *worker) call(ctx context.Context, id uint64, req transport.Request) {
	sent := time.Now()
	span := w.replicating(req)
	callTraced(w.transport, w.newest.Peer, req, span, w.timeout, func(a transport.Answer) {
		if a.Err == nil {
			w.metrics.answered(span.Context(), sent, a.Arrived, w.measured)
		}
		select {
		case w.answers <- appendAnswer{id: id, answer: a}:
		case <-ctx.Done():
		}
	})
}

func (w *worker) answered(a appendAnswer) {
	w.metrics.waited(channelReplies, a.answer.Arrived, w.metrics.now())
	resp, ok := a.answer.Response.(*raft.AppendResponse)
	if a.answer.Err != nil || !ok {
		if a.answer.Err != nil && !errors.Is(a.answer.Err, transport.ErrNoResponders) {
			w.logger.Debug("append was not answered", "target", w.newest.Peer.ID, "error", a.answer.Err)
		}
		w.replicator.Failed(a.id)
		return
	}
	_, err := w.replicator.Answered(a.id, resp, a.answer.Boot, w.log)
	if err != nil {
		w.complain(a.answer.Arrived, "cannot find where a target's log agrees", "error", err)
		w.replicator.Unsendable()
	}
}

// noteProgress has what changed sent to RaftCore.
func (w *worker) noteProgress() {
	if report := w.replicator.Progress(); report != w.report {
		w.report, w.changed = report, true
	}
}
