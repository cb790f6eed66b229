package raft

import (
	"slices"
	"time"
)

// durability tracks which of the engine's writes are on disk. Writes become durable in the order of their numbers, so
// "durable up to number n" is all that needs to be told; and because a truncation lowers what earlier numbers mean, the
// late completion of an overwritten entry never counts for the entry that replaced it.
type durability struct {
	// seq is the newest durable write.
	seq uint64
	// index: the present log is on disk up to here.
	index uint64
	// voteSeq is the newest write with a vote in it.
	voteSeq uint64
	// pending are writes not yet durable, in order.
	pending []pendingWrite
	// progress is when a write became durable last.
	progress time.Time
}

type pendingWrite struct {
	seq uint64
	// last is the end of the log after the write, lowered by later truncations.
	last uint64
	// since is when the write was handed out.
	since time.Time
}

// gated is an answer that waits for the disk.
type gated struct {
	// vote says which of the two it is.
	vote        bool
	voteReply   VoteReply
	appendReply AppendReply
	// seq must be durable, and the log up to index.
	seq, index uint64
}

// write returns the write that this step builds.
func (e *Engine) write() *Write {
	if e.out.Write == nil {
		e.out.Write = &Write{Seq: e.seq + 1}
		e.disk.pending = append(e.disk.pending, pendingWrite{seq: e.seq + 1, last: e.log.last.Index})
	}
	return e.out.Write
}

func (e *Engine) setVote(v Vote) {
	if v == e.vote {
		return
	}
	e.vote = v
	w := e.write()
	w.Vote = &v
	e.disk.voteSeq = w.Seq
	e.out.Changed = true
}

// appendEntry adds an entry that follows on the last one.
func (e *Engine) appendEntry(entry Entry) { e.appendEntries([]Entry{entry}) }

// appendEntries adds entries that follow on the last one. The slice is the engine's from then on.
func (e *Engine) appendEntries(entries []Entry) {
	w := e.write()
	if len(w.Append) == 0 {
		w.Append = slices.Clip(entries)
	} else {
		w.Append = append(w.Append, entries...)
	}
	for i := range entries {
		entry := &entries[i]
		e.log.Append(entry.ID)
		if entry.Kind == EntryMembership && entry.Membership != nil {
			e.memberships = append(e.memberships, MembershipAt{ID: entry.ID, Membership: entry.Membership})
			e.out.Changed = true
		}
		if entry.Kind == EntrySetting && entry.Setting != nil {
			e.settings = append(e.settings, SettingAt{ID: entry.ID, Setting: *entry.Setting})
			e.out.Changed = true
		}
	}
	e.disk.pending[len(e.disk.pending)-1].last = e.log.last.Index
}

// truncate removes the entry at from and all after it.
func (e *Engine) truncate(from uint64) {
	w := e.write()
	if len(w.Append) > 0 && from >= w.Append[0].ID.Index {
		w.Append = slices.Clip(w.Append[:from-w.Append[0].ID.Index]) // nothing of it has been handed out yet
	} else {
		w.Append = nil
		w.TruncateFrom = from // below an earlier one of this step, if there was one: what that left, it deletes
	}
	e.log.Truncate(from)
	e.disk.index = min(e.disk.index, from-1)
	for i := range e.disk.pending {
		e.disk.pending[i].last = min(e.disk.pending[i].last, from-1)
	}
	// A configuration is undone with its entry: the one before it, wherever that stands, is in force again (paper section 6).
	for n := len(e.memberships); n > 1 && e.memberships[n-1].ID.Index >= from; n-- {
		e.memberships = e.memberships[:n-1]
		e.out.Changed = true
	}
	for n := len(e.settings); n > 1 && e.settings[n-1].ID.Index >= from; n-- {
		e.settings = e.settings[:n-1]
		e.out.Changed = true
	}
	e.refuseGatedAfter(from - 1)
	e.releaseGated()
}

// refuseGatedAfter turns down answers about entries that are gone: the asker's leadership is over, so it gets the newer term.
func (e *Engine) refuseGatedAfter(last uint64) {
	for i := range e.gated {
		if g := &e.gated[i]; g.index > last {
			g.appendReply.Response = AppendResponse{From: e.cfg.Self, Term: e.vote.Term, Status: AppendRefused}
			g.index, g.seq = 0, e.disk.voteSeq
		}
	}
}

// refuseGatedOfOldTerms turns down answers about entries that an installation has done away with before they were on disk: their asker leads
// no more, and may have had other entries there than the snapshot. What was committed already is in the snapshot as it was.
func (e *Engine) refuseGatedOfOldTerms() {
	for i := range e.gated {
		if g := &e.gated[i]; !g.vote && g.index > e.commit && g.appendReply.Response.Term < e.vote.Term {
			g.appendReply.Response = AppendResponse{From: e.cfg.Self, Term: e.vote.Term, Status: AppendRefused}
			g.index, g.seq = 0, e.disk.voteSeq
		}
	}
}

// Durable tells that the write of that number, and all before it, are on disk since at. That may be earlier than other inputs: a core that
// was busy hears of it late, and a disk that has stood still since then is stalled all the same.
func (e *Engine) Durable(at time.Time, seq uint64) {
	e.step(at)
	seq = min(seq, e.seq) // no more than was handed out
	if seq <= e.disk.seq {
		return
	}
	e.disk.seq = seq
	e.disk.progress = at
	n := 0
	for n < len(e.disk.pending) && e.disk.pending[n].seq <= seq {
		e.disk.index = max(e.disk.index, e.disk.pending[n].last)
		n++
	}
	e.disk.pending = append(e.disk.pending[:0], e.disk.pending[n:]...)
	e.releaseGated()
	e.campaignDurable()
	e.advanceCommit()
}

// DurableIndex is the index up to which the log is on this node's disk.
func (e *Engine) DurableIndex() uint64 { return e.disk.index }

func (e *Engine) voteDurable() bool { return e.disk.voteSeq <= e.disk.seq }

// replyVote answers when the vote that stands now is durable.
func (e *Engine) replyVote(to ReplyTo, r VoteResponse) {
	e.gate(gated{vote: true, voteReply: VoteReply{To: to, Response: r}, seq: e.disk.voteSeq})
}

// replyAppend answers when the vote that stands now, and the log up to what the answer claims, are durable.
func (e *Engine) replyAppend(to ReplyTo, r AppendResponse) {
	r.Versions = e.cfg.Versions
	e.gate(gated{appendReply: AppendReply{To: to, Response: r}, seq: e.disk.voteSeq, index: r.Matched.Index})
}

// reached reports whether what the answer waits for is on disk.
func (d *durability) reached(g gated) bool { return g.seq <= d.seq && g.index <= d.index }

func (e *Engine) gate(g gated) {
	if e.disk.reached(g) {
		e.emit(g)
		return
	}
	e.gated = append(e.gated, g)
}

func (e *Engine) emit(g gated) {
	if g.vote {
		e.out.VoteReplies = append(e.out.VoteReplies, g.voteReply)
	} else {
		e.out.AppendReplies = append(e.out.AppendReplies, g.appendReply)
	}
}

func (e *Engine) releaseGated() {
	kept := e.gated[:0]
	for _, g := range e.gated {
		if e.disk.reached(g) {
			e.emit(g)
		} else {
			kept = append(kept, g)
		}
	}
	clear(e.gated[len(kept):])
	e.gated = kept
}

// diskStalled reports whether writes wait for the disk and none has become durable for longer than an election timeout. A
// disk that is slow but moves is not stalled, however long its queue.
func (e *Engine) diskStalled() bool {
	if len(e.disk.pending) == 0 || e.disk.pending[0].seq > e.seq {
		return false // nothing waits, or only what is being decided
	}
	since := e.disk.pending[0].since
	if e.disk.progress.After(since) {
		since = e.disk.progress
	}
	return e.now.Sub(since) > e.cfg.ElectionTimeout
}
