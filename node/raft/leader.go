package raft

import (
	"cmp"
	"slices"
	"time"
)

// leading is the state of a leadership. It exists while the node leads and not a moment longer.
type leading struct {
	term uint64
	// start is the blank entry that the leader began with. Once it is committed, so is all that came before.
	start LogID
	// targets by id: all members but the leader.
	targets map[NodeID]*target
	// successors ranks the voters, the most caught up first.
	successors []NodeID
	reads      reads
	transfer   *transfer
	// released: it told a voter to stand, which frees all of their promises. It has no lease any more.
	released bool
	// awake is when its clock was last found to have stood still; zero if it never was.
	awake time.Time
	// beat is the newest heartbeat that was asked for by hand.
	beat uint64
	// nextTick is when the leader looks at its quorum and refreshes its workers.
	nextTick time.Time
	since    time.Time
}

// target is what a leader knows of one peer it replicates to.
//
// Invariant: matched is in the leader's log, and never goes back within one worker's life.
type target struct {
	peer    Peer
	worker  uint64
	matched LogID
	// acked is when the newest request that it answered was sent.
	acked time.Time
	// round is the newest read round that it confirmed.
	round uint64
	// suspect: its log went back, or two processes answer under its name. It does not count until it is replaced.
	suspect bool
	// answered: it has answered in this leadership.
	answered bool
	// versions are the newest that it speaks, if it has answered.
	versions Versions
	// unreachable: it did not answer the newest message.
	unreachable bool
	// installing is the snapshot that it is offered now, or zero. catchingUp: it has installed one, and lacks entries before a newer one.
	installing LogID
	catchingUp bool
	// damages of its reports were seen.
	damages uint64
}

// Target says what a worker should bring one peer to.
type Target struct {
	Peer Peer
	// Worker is unique over all leaderships of this engine; reports carry it.
	Worker uint64
	Term   uint64
	// Last is the newest entry to replicate.
	Last   LogID
	Commit uint64
	// Round is the newest read round: the peer must answer a request that was sent after it began.
	Round      uint64
	Successors []NodeID
	// Snapshot is the newest complete one, to offer when entries that the peer needs are purged; SnapshotKnown goes with each message.
	Snapshot      SnapshotRef
	SnapshotKnown LogID
	// Beat asks for a heartbeat now whenever it grows. Mute: no others, but those that find out whether a silent peer is back.
	Beat uint64
	Mute bool
	// HeartbeatInterval, if not zero, replaces that of the worker's configuration.
	HeartbeatInterval time.Duration
	// Until is when the worker must stop making the leader known: its RaftCore has not been heard of for too long.
	Until time.Time
}

// Progress is what a worker reports.
type Progress struct {
	Peer   Peer
	Worker uint64
	// Matched is durable on the peer.
	Matched LogID
	// Acked is when the newest request that the peer answered was sent; zero if there was none.
	Acked time.Time
	// Versions are the newest that the peer speaks, if it has answered.
	Versions Versions
	// Round is the newest read round confirmed.
	Round uint64
	// SeenTerm is a term newer than the leader's that the peer told of, or zero.
	SeenTerm uint64
	// Unreachable: the newest message that something became of was not answered.
	Unreachable bool
	// NeedSnapshot: the peer needs entries that are purged, and no snapshot that it can be offered is as new as them.
	NeedSnapshot bool
	// Damages counts the offers of which the peer said that the snapshot is missing or damaged; Damaged is what the newest of them went up to.
	Damages uint64
	Damaged LogID
	// Installing is the snapshot that it is offered now, or zero: what follows it must not be purged.
	Installing LogID
	// Suspect says that the peer cannot be what it was, in words; empty if all is well.
	Suspect string
}

func (e *Engine) becomeLeader() {
	e.campaign = nil
	e.following.leader = e.cfg.Self
	e.following.gone, e.following.tries = false, 0
	e.following.neededBy = LogID{}
	e.refuseHeld()
	e.snapshot = SnapshotRef{} // of an earlier leadership: others may have replaced it since, and deleted it
	l := &leading{
		term:    e.vote.Term,
		start:   LogID{Term: e.vote.Term, Index: e.log.last.Index + 1},
		targets: map[NodeID]*target{},
		since:   e.now,
	}
	e.leading = l
	// A leader cannot commit what earlier terms left by counting, so it appends an entry of its own (paper sections 5.4.2
	// and 8).
	e.appendEntry(Entry{ID: l.start, Kind: EntryBlank})
	e.reconcileTargets()
	e.scheduleLeaderTick()
	e.advanceCommit()
	e.out.Changed = true
}

// endLeadership forgets all that only a leader knows. Its waiting reads have failed.
func (e *Engine) endLeadership() {
	for _, r := range e.leading.reads.all() {
		e.out.Reads = append(e.out.Reads, ReadReady{ID: r.id, Lost: true})
	}
	e.leading = nil
	e.following.leader = Peer{}
	e.out.Replicate = true
	e.out.Changed = true
}

// reconcileTargets makes one target for each member but the leader.
func (e *Engine) reconcileTargets() {
	l, m := e.leading, e.Membership()
	for id, t := range l.targets {
		if !m.Contains(t.peer) {
			delete(l.targets, id)
		}
	}
	for _, member := range m.Members {
		if member.Peer == e.cfg.Self || l.targets[member.ID] != nil {
			continue
		}
		e.workers++
		l.targets[member.ID] = &target{peer: member.Peer, worker: e.workers, acked: e.now}
	}
	e.rankSuccessors()
	e.out.Replicate = true
	e.advanceReads() // who is left may be quorum enough, and have nobody to hear from
}

func (e *Engine) scheduleLeaderTick() {
	e.leading.nextTick = e.now.Add(min(e.cfg.HeartbeatInterval, e.cfg.ElectionTimeout/8))
}

func (e *Engine) tickLeader() {
	if e.now.Before(e.leading.nextTick) && e.quorumAge() <= e.cfg.ElectionTimeout {
		return
	}
	switch {
	case e.quorumAge() > e.cfg.ElectionTimeout, e.diskStalled():
		// Without its quorum it can decide nothing, and without its disk it is of no use: heartbeats alone must not keep it.
		e.becomeFollower(e.vote.Term, Peer{})
		return
	}
	if x := e.leading.transfer; x != nil && !e.now.Before(x.deadline) {
		e.leading.transfer = nil // it came to nothing: go on leading
		e.out.Changed = true
	}
	e.rankSuccessors()
	e.raiseVersions()
	e.scheduleLeaderTick()
	e.out.Replicate = true
}

// QuorumAck returns when the oldest request was sent that a quorum has answered since, counting the leader itself, and
// false if the node does not lead.
func (e *Engine) QuorumAck() (time.Time, bool) {
	if e.leading == nil {
		return time.Time{}, false
	}
	return e.now.Add(-e.quorumAge()), true
}

// quorumAge is how long ago a quorum was last known to follow. It counts from when a request was sent, not from when
// its answer came: a process that was paused finds all its answers old.
func (e *Engine) quorumAge() time.Duration {
	at := e.Membership().QuorumValue(func(m Member) uint64 {
		if m.Peer == e.cfg.Self {
			return uint64(e.now.Sub(e.leading.since)) // itself, now
		}
		if t := e.leading.targets[m.ID]; t != nil && t.peer == m.Peer {
			return uint64(max(0, t.acked.Sub(e.leading.since)))
		}
		return 0
	})
	return e.now.Sub(e.leading.since) - time.Duration(at)
}

func (e *Engine) rankSuccessors() {
	l := e.leading
	l.successors = l.successors[:0:0]
	for _, m := range e.Membership().Members {
		if m.Voter && m.Peer != e.cfg.Self {
			l.successors = append(l.successors, m.ID)
		}
	}
	slices.SortStableFunc(l.successors, func(a, b NodeID) int {
		ta, tb := l.targets[a], l.targets[b]
		if c := cmp.Compare(tb.matched.Index, ta.matched.Index); c != 0 {
			return c
		}
		return cmp.Compare(a, b)
	})
}

// Replication returns the targets that workers must serve now, in ascending order of their ids; none unless the node
// leads.
func (e *Engine) Replication() []Target {
	if e.leading == nil {
		return nil
	}
	l := e.leading
	targets := make([]Target, 0, len(l.targets))
	for _, m := range e.Membership().Members {
		t := l.targets[m.ID]
		if t == nil {
			continue
		}
		targets = append(targets, Target{
			Peer: t.peer, Worker: t.worker, Term: l.term, Last: e.log.last, Commit: e.commit,
			Round: l.reads.begun, Successors: l.successors, Until: e.now.Add(e.cfg.ElectionTimeout),
			Snapshot: e.snapshot, SnapshotKnown: e.snapshotKnown, Beat: l.beat, Mute: e.mute,
			HeartbeatInterval: e.cfg.HeartbeatInterval,
		})
	}
	return targets
}

// Propose appends entries to the leader's log, in order. It fills in their ids, and keeps the slice. It returns the id of the first one, and
// false if the node does not lead, or is handing over.
func (e *Engine) Propose(now time.Time, entries []Entry) (LogID, bool) {
	e.step(now)
	if e.leading == nil || e.leading.transfer != nil {
		return LogID{}, false
	}
	first := LogID{Term: e.vote.Term, Index: e.log.last.Index + 1}
	membership := false
	for i := range entries {
		entries[i].ID = LogID{Term: first.Term, Index: first.Index + uint64(i)}
		membership = membership || entries[i].Kind == EntryMembership
	}
	e.appendEntries(entries)
	if membership {
		e.reconcileTargets() // a configuration takes effect when it is appended
	}
	e.out.Replicate = true
	e.advanceCommit()
	return first, true
}

// Progress handles a worker's report. Reports of workers that serve nobody any more are void, whatever they say.
func (e *Engine) Progress(now time.Time, p Progress) {
	e.step(now)
	if p.SeenTerm > e.vote.Term && p.SeenTerm <= MaxTerm {
		e.becomeFollower(p.SeenTerm, Peer{})
		return
	}
	if e.leading == nil {
		return
	}
	t := e.leading.targets[p.Peer.ID]
	if t == nil || t.worker != p.Worker || t.peer != p.Peer {
		return
	}
	if p.Suspect != "" {
		if !t.suspect {
			e.violation("%v: %s; it does not count until it is replaced", p.Peer, p.Suspect)
		}
		t.suspect = true
		return
	}
	if t.suspect {
		return
	}
	if p.Matched.Index > t.matched.Index {
		if !e.log.Has(p.Matched) && p.Matched.Index >= e.log.purged.Index { // before that it is committed, and commits nothing
			e.violation("%v says that it matched %v, which is not in the leader's log", p.Peer, p.Matched)
			return
		}
		t.matched = p.Matched
	}
	if !p.Acked.IsZero() {
		t.answered, t.versions = true, p.Versions
	}
	if p.Acked.After(t.acked) {
		t.acked = p.Acked
	}
	t.round = max(t.round, p.Round)
	e.noteInstalling(t, p.Installing)
	t.unreachable = p.Unreachable
	e.out.NeedSnapshot = e.out.NeedSnapshot || p.NeedSnapshot
	if p.Damages > t.damages { // each only once: a snapshot that is built again may go up to the same entry
		t.damages = p.Damages
		if p.Damaged.Index > 0 && p.Damaged == e.snapshot.Last {
			e.ForgetSnapshot(e.snapshot)
			e.out.NeedSnapshot, e.out.SnapshotDamaged = true, true
		}
	}
	e.advanceCommit()
	e.advanceTransfer()
	e.advanceReads()
}

// TargetStatus is what a leader knows of one target.
type TargetStatus struct {
	Peer    Peer
	Matched LogID
	Acked   time.Time
	Suspect bool
	// Answered: it has answered in this leadership. Installing is the snapshot that it is offered now, or zero.
	Answered   bool
	Installing LogID
	// Versions are the newest that it speaks, if it has answered.
	Versions Versions
	// Reachable: it answers.
	Reachable bool
}

// answers reports whether the target has answered lately, and did not fail to since. In the beginning of a leadership it is given the
// time to.
func (e *Engine) answers(t *target) bool {
	return !t.suspect && !t.unreachable && e.now.Sub(t.acked) <= e.cfg.ElectionTimeout
}

// Targets returns what the leader knows of its targets, in ascending order of their ids.
func (e *Engine) Targets() []TargetStatus {
	if e.leading == nil {
		return nil
	}
	var all []TargetStatus
	for _, m := range e.Membership().Members {
		if t := e.leading.targets[m.ID]; t != nil {
			all = append(all, TargetStatus{Peer: t.peer, Matched: t.matched, Acked: t.acked, Suspect: t.suspect, Answered: t.answered, Installing: t.installing, Versions: t.versions, Reachable: e.answers(t)})
		}
	}
	return all
}
