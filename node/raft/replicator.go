package raft

import (
	"errors"
	"sort"
	"time"
)

// ReplicatorConfig bounds what a Replicator has under way.
type ReplicatorConfig struct {
	HeartbeatInterval time.Duration
	// MaxInFlight messages, and MaxInFlightBytes of entries, may be unanswered.
	MaxInFlight      int
	MaxInFlightBytes int
	// MaxMessageBytes is the most that the entries of one message may have, unless a single entry has more.
	MaxMessageBytes int
}

// maxHeartbeats is how many heartbeats may be unanswered before read rounds alone send no more: a silent peer costs
// bounded memory. Those that keep the leader known go on.
const maxHeartbeats = 16

// ErrPurged says that an entry is purged: only a snapshot holds it now.
var ErrPurged = errors.New("log entries are purged")

// LogTerms gives the term of an entry of the leader's log, or ErrPurged.
type LogTerms interface {
	Term(index uint64) (uint64, error)
}

// Replicator is the protocol by which a worker brings one peer's log to agree with the leader's. It is pure: the worker
// asks it what to send next and tells it what became of that.
//
// It probes with one message at a time until the peer has matched one, then pipelines. Heartbeats go beside this, one each
// interval whatever else is sent, and wait for nothing. They carry what is matched already, so that a peer can answer them at
// once: a slow disk delays its answers to entries, but never makes it look dead.
//
// It belongs to its worker's goroutine.
type Replicator struct {
	cfg    ReplicatorConfig
	target Target

	// probing: the match point is not known; at most one message with entries is under way.
	probing bool
	// matched is on the peer's disk. It never goes back.
	matched LogID
	// next is the first index not sent yet. matched.Index < next <= target.Last.Index+1.
	next uint64
	// flights are unanswered messages, in the order of sending.
	flights []flight
	// bytes in flight, and messages with entries in flight, of the present epoch.
	bytes, messages int
	// heartbeats in flight.
	heartbeats int
	// epoch counts how often the pipeline was given up. Conflicts and losses of earlier epochs mean nothing.
	epoch uint64
	// lastID numbers messages.
	lastID uint64

	// paused: the peer did not answer; only heartbeats are sent until it does.
	paused bool
	// silent: the target was too old at silentAt to send anything. A newer one ends it.
	silent   bool
	silentAt time.Time
	// heartbeatAt is when the next heartbeat is due.
	heartbeatAt time.Time
	// roundSent is the newest read round that a message was sent for.
	roundSent uint64

	// needs: entries that the peer needs are purged; only a snapshot that goes up to purged, or further, brings them.
	needs  bool
	purged LogID
	// offering: an offer is unanswered.
	offering bool
	// beat is the newest heartbeat by hand that was sent.
	beat uint64

	boots    boots
	progress Progress
}

type flight struct {
	id    uint64
	epoch uint64
	// heartbeat: sent beside the pipeline, without entries.
	heartbeat bool
	// install: the offer of a snapshot.
	install bool
	// known: prev was matched when the message was sent.
	known bool
	prev  LogID
	last  LogID
	bytes int
	sent  time.Time
	round uint64
}

// NewReplicator returns a replicator that begins at the end of the leader's log: usually the peer has it all.
func NewReplicator(cfg ReplicatorConfig, target Target, now time.Time) *Replicator {
	return &Replicator{
		cfg:         cfg,
		target:      target,
		probing:     true,
		next:        max(1, target.Last.Index), // with the leader's own first entry
		heartbeatAt: now,
		progress:    Progress{Peer: target.Peer, Worker: target.Worker},
	}
}

// Update takes the newest target. It must be of the same worker.
func (r *Replicator) Update(t Target) {
	r.target = t
	r.silent = false
	if t.HeartbeatInterval > 0 {
		r.cfg.HeartbeatInterval = t.HeartbeatInterval
	}
}

// Send is a message that should be sent now.
type Send struct {
	ID uint64
	// Prev is the index before the first entry; entries from Lo up to, not including, Hi as far as MaxBytes allows.
	// Without entries Lo == Hi.
	Prev     uint64
	Lo, Hi   uint64
	MaxBytes int
	// Matched is the whole Prev if Heartbeat: its term need not be looked up.
	Matched   LogID
	Heartbeat bool
	Commit    uint64
	// Install: offer Snapshot, and nothing else of the above.
	Install  bool
	Snapshot SnapshotRef
}

// Next returns what to send now, and false if there is nothing. The worker must answer each Send by Sent or by Unsendable
// before it calls Next again.
func (r *Replicator) Next(now time.Time) (Send, bool) {
	if now.After(r.target.Until) {
		r.silent, r.silentAt = true, now
		return Send{}, false // RaftCore is not heard of: it may have lost its disk or its mind
	}
	if !now.Before(r.heartbeatAt) && r.beats() || r.target.Beat > r.beat && r.heartbeats < maxHeartbeats {
		return r.heartbeat(), true
	}
	if r.needs && !r.offering && r.matched.Index >= r.purged.Index {
		// A late answer told that the peer has what is purged.
		r.needs = false
		r.progress.NeedSnapshot, r.progress.Installing = false, LogID{}
	}
	if r.needs {
		if s, ok := r.offer(); ok {
			return s, true
		}
	} else if r.mayReplicate() {
		return Send{
			ID: r.lastID + 1, Prev: r.next - 1, Lo: r.next, Hi: r.target.Last.Index + 1,
			MaxBytes: min(r.cfg.MaxMessageBytes, max(1, r.cfg.MaxInFlightBytes-r.bytes)), Commit: r.target.Commit,
		}, true
	}
	if r.target.Round > r.roundSent && r.heartbeats < maxHeartbeats {
		return r.heartbeat(), true
	}
	return Send{}, false
}

// beats reports whether heartbeats are sent by the clock. While they are switched off, those are that find out whether the peer is back: nothing
// else would.
func (r *Replicator) beats() bool {
	return !r.target.Mute || r.paused && (r.needs || r.next <= r.target.Last.Index)
}

func (r *Replicator) heartbeat() Send {
	return Send{
		ID: r.lastID + 1, Prev: r.matched.Index, Lo: r.matched.Index + 1, Hi: r.matched.Index + 1,
		Matched: r.matched, Heartbeat: true, Commit: r.target.Commit,
	}
}

// Purged tells that a message could not be made because its entries are purged up to this log id: the peer needs a snapshot.
func (r *Replicator) Purged(upTo LogID) {
	r.needs, r.purged = true, upTo
	r.progress.NeedSnapshot = r.target.Snapshot.Last.Index < upTo.Index
}

// offer makes the offer of a snapshot, one at a time. A newer target brings one if there is none yet.
func (r *Replicator) offer() (Send, bool) {
	r.progress.NeedSnapshot = r.target.Snapshot.Last.Index < r.purged.Index
	if r.progress.NeedSnapshot || r.offering || r.paused || r.progress.Suspect != "" {
		return Send{}, false
	}
	return Send{ID: r.lastID + 1, Install: true, Snapshot: r.target.Snapshot, Commit: r.target.Commit}, true
}

// Progress returns what RaftCore should know now.
func (r *Replicator) Progress() Progress { return r.progress }

// InFlight returns how many messages with entries are unanswered, and the bytes of these entries.
func (r *Replicator) InFlight() (messages, bytes int) { return r.messages, r.bytes }

func (r *Replicator) mayReplicate() bool {
	if r.paused || r.progress.Suspect != "" {
		return false
	}
	if r.probing {
		return r.messages == 0 && r.next <= r.target.Last.Index
	}
	return r.next <= r.target.Last.Index && r.messages < r.cfg.MaxInFlight && r.bytes < r.cfg.MaxInFlightBytes
}

// Foreign reports whether entries that were read from the log, to follow on prev, cannot be this leader's: its leadership has
// ended, which the worker has not heard yet, and another leader's entries have taken the place of some. They must not be sent
// in its name: the worker tells Unsendable, and will be stopped.
func (r *Replicator) Foreign(prev LogID, entries []Entry) bool {
	first, last := entries[0].ID, entries[len(entries)-1].ID
	return first.Term < prev.Term || last.Term > r.target.Term
}

// Sent tells that the message was handed to the network: its previous log id, its last one, and the bytes of its entries.
func (r *Replicator) Sent(now time.Time, s Send, prev, last LogID, bytes int) {
	r.lastID = s.ID
	r.flights = append(r.flights, flight{
		id: s.ID, epoch: r.epoch, heartbeat: s.Heartbeat, known: prev.Index <= r.matched.Index, prev: prev, last: last,
		bytes: bytes, sent: now, round: r.target.Round,
	})
	if s.Install {
		r.flights[len(r.flights)-1].install = true
		r.offering = true
		r.progress.Installing = s.Snapshot.Last
		return // its answer takes long, so a read round does not wait for it
	}
	r.roundSent = r.target.Round
	if s.Heartbeat {
		r.heartbeatAt = now.Add(r.cfg.HeartbeatInterval)
		r.heartbeats++
		r.beat = r.target.Beat
		return
	}
	r.bytes += bytes
	r.messages++
	r.next = last.Index + 1
}

// Unsendable tells that a message could not be made, because its entries could not be read. Only heartbeats follow until the
// peer answers one.
func (r *Replicator) Unsendable() { r.paused = true }

func (r *Replicator) take(id uint64) (flight, bool) {
	for i, f := range r.flights {
		if f.id == id {
			r.flights = append(r.flights[:i], r.flights[i+1:]...)
			switch {
			case f.heartbeat:
				r.heartbeats--
			case f.install:
				r.offering = false
			case f.epoch == r.epoch:
				r.bytes -= f.bytes
				r.messages--
			}
			return f, true
		}
	}
	return flight{}, false
}

// restart gives the pipeline up and probes from next.
func (r *Replicator) restart(next uint64) {
	r.epoch++
	r.bytes, r.messages = 0, 0
	r.probing = true
	r.next = max(next, r.matched.Index+1)
}

// Answered tells the answer to a message, and which process (boot id) gave it. It returns what to report to RaftCore.
// The error is that of a look-up in the leader's log.
func (r *Replicator) Answered(id uint64, resp *AppendResponse, boot uint64, log LogTerms) (Progress, error) {
	f, ok := r.take(id)
	if !ok {
		return r.progress, nil
	}
	if resp.From != r.target.Peer || resp.Term > MaxTerm || resp.Term < r.target.Term {
		// In another's name, or of no term in which this was asked: it counts for nothing.
		r.lost(f)
		return r.progress, nil
	}
	switch r.boots.see(boot, id, r.lastID) {
	case bootLate:
		r.lost(f)
		return r.progress, nil
	case bootAlternates:
		r.progress.Suspect = "two processes answer under its name by turns"
		return r.progress, nil
	}
	if resp.Term > r.target.Term {
		r.progress.SeenTerm = max(r.progress.SeenTerm, resp.Term)
		return r.progress, nil
	}
	if resp.Status == AppendRefused {
		r.progress.Suspect = "it refuses its leader's messages, in the leader's own term"
		return r.progress, nil
	}
	if f.sent.After(r.progress.Acked) {
		r.progress.Acked = f.sent
	}
	r.progress.Versions = resp.Versions
	r.progress.Round = max(r.progress.Round, f.round)
	r.progress.Unreachable = false
	r.paused = false
	switch {
	case resp.Status == AppendMatched:
		r.matchedUpTo(f, resp.Matched)
	case resp.Status == AppendConflict && !f.install:
		return r.progress, r.conflict(f, resp.Hint, log)
	case resp.Status == AppendDamaged && f.install:
		r.progress.Damages++
		r.progress.Damaged = f.last
		r.lost(f)
	default:
		// AppendInstalling, or what is no answer to that message: it is sent again after the next heartbeat, since what failed at once
		// may fail at once again.
		r.lost(f)
	}
	return r.progress, nil
}

func (r *Replicator) matchedUpTo(f flight, matched LogID) {
	if matched.Index > f.last.Index {
		matched = f.last // the peer cannot have matched what it was not sent
	}
	if matched.Index > r.matched.Index {
		r.matched = matched
		r.progress.Matched = matched
	}
	if f.install {
		r.needs = false
		r.progress.NeedSnapshot, r.progress.Installing = false, LogID{}
		r.restart(r.matched.Index + 1)
		return
	}
	if f.heartbeat || f.epoch != r.epoch {
		r.next = max(r.next, r.matched.Index+1)
		return
	}
	if matched.Index < f.last.Index {
		r.restart(matched.Index + 1) // it took a part: go on after that
		return
	}
	r.probing = false
	r.next = max(r.next, r.matched.Index+1)
}

func (r *Replicator) conflict(f flight, hint LogID, log LogTerms) error {
	if f.known {
		// It had acknowledged, as durable, what it says now that it does not have.
		r.progress.Suspect = "its log went back behind what it had acknowledged"
		return nil
	}
	if f.epoch != r.epoch {
		return nil
	}
	next, err := r.afterHint(f.prev, hint, log)
	if err != nil {
		r.restart(f.prev.Index + 1) // the same again, when the log can be read
		return err
	}
	r.restart(next)
	return nil
}

// afterHint finds where the leader's log can agree with that of a peer who offers hint: the newest index not above the
// hint's with a term not above it. Terms grow along the log, so a binary search does.
func (r *Replicator) afterHint(prev, hint LogID, log LogTerms) (uint64, error) {
	lo, hi := r.matched.Index, min(hint.Index, prev.Index-1)
	if prev.Index == 0 || hi <= lo {
		return lo + 1, nil
	}
	var failed error
	n := sort.Search(int(hi-lo), func(i int) bool {
		term, err := log.Term(hi - uint64(i))
		if errors.Is(err, ErrPurged) {
			return true // committed, so it agrees; what follows it will be found purged as well, and a snapshot offered
		}
		if err != nil {
			failed = err
			return true
		}
		return term <= hint.Term
	})
	if failed != nil {
		return 0, failed
	}
	return hi - uint64(n) + 1, nil
}

// Failed tells that a message was not answered: nobody was there, or time ran out. What followed it may be lost as well. It
// probes again where that message began, as soon as the peer answers a heartbeat.
func (r *Replicator) Failed(id uint64) {
	if f, ok := r.take(id); ok {
		r.progress.Unreachable = true
		r.lost(f)
	}
}

func (r *Replicator) lost(f flight) {
	if f.install {
		r.paused = true
		return
	}
	if f.heartbeat || f.epoch != r.epoch {
		return
	}
	// From there, and not from what is matched: a peer of which nothing is known yet usually has the log up to there, and what is matched
	// may be purged meanwhile. If it does not, its conflict hint says so.
	r.restart(f.prev.Index + 1)
	r.paused = true
}

// Deadline returns when Next has something to send if nothing else happens.
func (r *Replicator) Deadline() time.Time {
	if r.silent {
		return r.silentAt.Add(r.cfg.HeartbeatInterval) // nothing, in truth, until there is a newer target
	}
	if !r.beats() {
		return r.target.Until.Add(1) // then it falls silent
	}
	return r.heartbeatAt
}
