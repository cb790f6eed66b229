package raft

import (
	"time"
)

// SnapshotRef names one complete snapshot wherever it is kept. It is what InstallRequest carries in place of the data.
type SnapshotRef struct {
	// Name of the manifest.
	Name string
	// Digest is the SHA-256 of the manifest's bytes: whoever has the reference can verify all that it leads to.
	Digest [32]byte
	// Last is the log id that the snapshot goes up to.
	Last LogID
	// Bytes is the size of the state machine's streams, before compression.
	Bytes uint64
}

// InstallRequest offers a snapshot to a follower that needs entries which the leader has purged (paper section 7). The follower
// fetches it by itself, and answers with an AppendResponse when it is installed, or what became of it.
type InstallRequest struct {
	Term     uint64
	Leader   Peer
	Snapshot SnapshotRef
}

// installing is a snapshot that this follower was offered and does not have yet.
type installing struct {
	ref SnapshotRef
	to  ReplyTo
	// owed: to is not answered yet.
	owed bool
}

// SetSnapshot tells a leader of a complete snapshot that targets can be offered. An older one than it has is ignored.
func (e *Engine) SetSnapshot(ref SnapshotRef) {
	if ref.Last.Index < e.snapshot.Last.Index {
		return
	}
	e.snapshot = ref
	e.snapshotKnown = maxLogID(e.snapshotKnown, ref.Last)
	e.out.Replicate = e.out.Replicate || e.leading != nil
	e.out.Changed = true
}

// ForgetSnapshot tells that a snapshot turned out to be missing or damaged: it is offered to nobody any more.
func (e *Engine) ForgetSnapshot(ref SnapshotRef) {
	if e.snapshot == ref {
		e.snapshot = SnapshotRef{}
		e.snapshotKnown = e.log.purged
		e.out.Replicate = e.out.Replicate || e.leading != nil
		e.out.Changed = true
	}
}

// Snapshot returns the newest complete snapshot that this node can offer, or the zero SnapshotRef.
func (e *Engine) Snapshot() SnapshotRef { return e.snapshot }

// SnapshotKnown returns the log id of the newest complete snapshot, this node's or the one that the leader told of. What lies at or
// before it can be had again without the log.
func (e *Engine) SnapshotKnown() LogID { return e.snapshotKnown }

// Install handles an offer.
func (e *Engine) Install(now time.Time, req *InstallRequest, to ReplyTo) {
	e.step(now)
	if wrong := req.malformed(e.cfg.Self); wrong != "" {
		e.violation("install request of %v: %s", req.Leader, wrong)
		e.refuseAppend(to)
		return
	}
	if !e.follows(req.Term, req.Leader) {
		e.refuseAppend(to)
		return
	}
	e.heardFromLeader(now, req.Term, req.Leader, nil)
	last := req.Snapshot.Last
	if last.Index <= e.commit { // no newer than what is committed here: nothing to do (known bug 21)
		resp := AppendResponse{From: e.cfg.Self, Term: e.vote.Term, Status: AppendMatched, Matched: last}
		if term, ok := e.log.Term(last.Index); ok && term != last.Term {
			e.violation("snapshot of %v, offered by %v, contradicts what is committed", last, req.Leader)
			e.refuseAppend(to)
			return
		}
		e.replyAppend(to, resp)
		return
	}
	i := e.installing
	if i != nil && i.owed {
		e.replyInstalling(i.to) // it asks again: the newer request is the one that waits
	}
	if i != nil && (i.ref == req.Snapshot || i.ref.Last.Index > last.Index) {
		i.to, i.owed = to, true
		return
	}
	e.installing = &installing{ref: req.Snapshot, to: to, owed: true}
	fetch := req.Snapshot
	e.out.Fetch = &fetch
	e.out.Changed = true
}

// Installing returns the snapshot that is being fetched, and false if there is none.
func (e *Engine) Installing() (SnapshotRef, bool) {
	if e.installing == nil {
		return SnapshotRef{}, false
	}
	return e.installing.ref, true
}

// FetchFailed tells that the snapshot could not be had, and whether that is because it is missing or damaged: the leader is told, and
// offers it again, or builds another one.
func (e *Engine) FetchFailed(now time.Time, ref SnapshotRef, damaged bool) {
	e.step(now)
	if e.installing == nil || e.installing.ref != ref {
		return
	}
	if i := e.installing; i.owed && damaged {
		e.replyAppend(i.to, AppendResponse{From: e.cfg.Self, Term: e.vote.Term, Status: AppendDamaged})
		i.owed = false
	}
	e.endInstalling()
	e.out.Changed = true
}

func (e *Engine) endInstalling() {
	if i := e.installing; i != nil && i.owed {
		e.replyInstalling(i.to)
	}
	e.installing = nil
}

func (e *Engine) replyInstalling(to ReplyTo) {
	e.replyAppend(to, AppendResponse{From: e.cfg.Self, Term: e.vote.Term, Status: AppendInstalling})
}

// MayInstall reports whether a snapshot is still worth installing: newer than all that is committed here.
func (e *Engine) MayInstall(last LogID) bool { return last.Index > e.commit && e.leading == nil }

// Installed tells that the state machine's state is that of a snapshot now, durably, and that the log was reset to it or, if it had
// the snapshot's last entry, purged up to there: what follows a matching entry is kept.
func (e *Engine) Installed(now time.Time, last LogID, membership MembershipAt, setting SettingAt) {
	e.step(now)
	if last.Index <= e.commit {
		e.endInstalling()
		return
	}
	kept := e.log.Has(last)
	if kept {
		e.log.Purge(last)
		for i := range e.disk.pending {
			e.disk.pending[i].last = max(e.disk.pending[i].last, last.Index)
		}
		e.disk.index = max(e.disk.index, last.Index)
	} else {
		e.log = LogView{purged: last, last: last}
		for i := range e.disk.pending {
			e.disk.pending[i].last = last.Index
		}
		e.disk.index = last.Index
		if w := e.out.Write; w != nil { // not handed out yet, and now without meaning but for the vote
			w.Append, w.TruncateFrom = nil, 0
		}
		e.refuseGatedAfter(last.Index)
		e.refuseGatedOfOldTerms()
	}
	if membership.Membership == nil {
		membership.Membership = &Membership{} // of one who knew nobody
	}
	later := []MembershipAt{membership}
	for _, at := range e.memberships {
		if kept && at.ID.Index > last.Index {
			later = append(later, at)
		}
	}
	e.memberships = later
	settings := []SettingAt{setting}
	for _, at := range e.settings {
		if kept && at.ID.Index > last.Index {
			settings = append(settings, at)
		}
	}
	e.settings = settings
	e.snapshotKnown = maxLogID(e.snapshotKnown, last)
	e.setCommit(last.Index)
	e.releaseGated()
	if i := e.installing; i != nil {
		if i.owed && i.ref.Last == last {
			e.replyAppend(i.to, AppendResponse{From: e.cfg.Self, Term: e.vote.Term, Status: AppendMatched, Matched: last})
			i.owed = false
		}
		e.endInstalling()
	}
	e.out.Changed = true
}

// installPatience is for how many election timeouts the log is kept for a target that was installing a snapshot when it fell silent.
const installPatience = 20

// PurgeFloor returns the index up to which the log may be purged as far as others need it: never past the newest complete
// snapshot, nor past one that a target is installing, or has installed and not caught up after, since that target needs what follows it
// (known bug 23).
func (e *Engine) PurgeFloor() uint64 {
	floor := min(e.snapshotKnown.Index, e.Applicable())
	if e.leading != nil {
		for _, t := range e.leading.targets {
			if t.suspect || e.now.Sub(t.acked) > installPatience*e.cfg.ElectionTimeout {
				continue // it may never come back, and the log must not grow until then
			}
			if t.installing.Index > 0 {
				floor = min(floor, t.installing.Index)
			} else if t.catchingUp {
				floor = min(floor, t.matched.Index)
			}
		}
	}
	return floor
}

// noteInstalling takes what a target says of its installation. When that has ended, it still lacks what was written meanwhile: if that were
// purged for the sake of a newer snapshot, it would need that one, and so on.
func (e *Engine) noteInstalling(t *target, now LogID) {
	if t.installing.Index > 0 && now.Index == 0 {
		t.catchingUp = true
	}
	t.installing = now
	if t.matched.Index >= e.snapshotKnown.Index {
		t.catchingUp = false
	}
}

// Purged tells that the log was purged up to an index that PurgeFloor allows.
func (e *Engine) Purged(upTo LogID) {
	e.log.Purge(upTo)
	e.out.Changed = true
}

// Purge forgets the entries up to and including one that the log has.
func (v *LogView) Purge(upTo LogID) {
	if upTo.Index <= v.purged.Index {
		return
	}
	v.purged = upTo
	n := 0
	for n+1 < len(v.runs) && v.runs[n+1].Index <= upTo.Index+1 {
		n++
	}
	v.runs = v.runs[n:]
	switch {
	case upTo == v.last:
		v.runs = nil
	case v.runs[0].Index <= upTo.Index:
		v.runs[0].Index = upTo.Index + 1
	}
}

func maxLogID(a, b LogID) LogID {
	if a.Less(b) {
		return b
	}
	return a
}
