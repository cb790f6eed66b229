package raft

import (
	"errors"
	"fmt"
)

// Check returns what is wrong with the engine's state, or nil: the invariants that its fields state, in one place. Tests and
// the simulator call it after each step; it costs too much for a running node.
func (e *Engine) Check() error {
	return errors.Join(e.log.check(), e.checkDisk(), e.checkMemberships(), e.checkSettings(), e.checkSnapshots(), e.checkRole())
}

func (v *LogView) check() error {
	if v.last.Index < v.purged.Index {
		return fmt.Errorf("log ends with %v, before its purge mark %v", v.last, v.purged)
	}
	if (len(v.runs) == 0) != (v.last == v.purged) {
		return fmt.Errorf("log from %v to %v has %d terms", v.purged, v.last, len(v.runs))
	}
	before := v.purged
	for i, run := range v.runs {
		// The first entry after the purge mark may continue its term.
		if run.Index <= before.Index || run.Term < before.Term || (i > 0 && run.Term == before.Term) {
			return fmt.Errorf("log: term run %v after %v", run, before)
		}
		if i == 0 && run.Index != v.purged.Index+1 {
			return fmt.Errorf("log begins with %v after purge mark %v", run, v.purged)
		}
		before = run
	}
	if before.Term != v.last.Term || before.Index > v.last.Index {
		return fmt.Errorf("log ends with %v, its last term begins with %v", v.last, before)
	}
	return nil
}

func (e *Engine) checkDisk() error {
	d := &e.disk
	if d.index > e.log.last.Index {
		return fmt.Errorf("durable up to %d, but the log ends at %d", d.index, e.log.last.Index)
	}
	if d.index < e.log.purged.Index {
		return fmt.Errorf("durable up to %d, but purged up to %v", d.index, e.log.purged)
	}
	newest := e.seq
	if e.out.Write != nil {
		newest = e.out.Write.Seq
	}
	if d.seq > newest || d.voteSeq > newest {
		return fmt.Errorf("write %d is durable and write %d has the vote, but only %d were made", d.seq, d.voteSeq, newest)
	}
	if want := newest - d.seq; uint64(len(d.pending)) != want {
		return fmt.Errorf("%d writes wait for the disk, want %d", len(d.pending), want)
	}
	for i, p := range d.pending {
		if p.seq != d.seq+uint64(i)+1 || p.last > e.log.last.Index {
			return fmt.Errorf("write %d (log up to %d) waits for the disk as number %d", p.seq, p.last, i)
		}
	}
	end := d.index
	if n := len(d.pending); n > 0 {
		end = d.pending[n-1].last
	}
	if end != e.log.last.Index {
		return fmt.Errorf("all writes make a log up to %d, but it ends at %d", end, e.log.last.Index)
	}
	for _, g := range e.gated {
		if e.disk.reached(g) {
			return fmt.Errorf("an answer waits for write %d and index %d, which are durable", g.seq, g.index)
		}
		if g.index > e.log.last.Index || g.seq > newest {
			return fmt.Errorf("an answer waits for write %d and index %d, which will never come", g.seq, g.index)
		}
	}
	return nil
}

func (e *Engine) checkMemberships() error {
	if e.commit > e.log.last.Index || e.commit < e.log.purged.Index {
		return fmt.Errorf("commit index %d is not within the log from %v to %v", e.commit, e.log.purged, e.log.last)
	}
	if len(e.memberships) == 0 {
		return errors.New("no membership")
	}
	for i, at := range e.memberships {
		switch {
		case i > 0 && at.ID.Index <= e.memberships[i-1].ID.Index:
			return fmt.Errorf("membership of entry %v after that of %v", at.ID, e.memberships[i-1].ID)
		case i == 0 && at.ID.Index > e.commit:
			return fmt.Errorf("oldest membership is of entry %v, which is not committed", at.ID)
		case i > 0 && at.ID.Index <= e.commit:
			return fmt.Errorf("membership of entry %v supersedes older ones that are still kept", at.ID)
		case at.ID.Index > e.log.purged.Index && !e.log.Has(at.ID):
			return fmt.Errorf("membership of entry %v, which is not in the log", at.ID)
		}
	}
	return nil
}

func (e *Engine) checkSettings() error {
	for i, at := range e.settings {
		switch {
		case i > 0 && at.ID.Index <= e.settings[i-1].ID.Index:
			return fmt.Errorf("setting of entry %v after that of %v", at.ID, e.settings[i-1].ID)
		case (i == 0) != (at.ID.Index <= e.commit):
			return fmt.Errorf("setting of entry %v is number %d, and the commit index is %d", at.ID, i, e.commit)
		case at.ID.Index > e.log.purged.Index && !e.log.Has(at.ID):
			return fmt.Errorf("setting of entry %v, which is not in the log", at.ID)
		}
	}
	if len(e.settings) == 0 {
		return errors.New("no setting")
	}
	return nil
}

func (e *Engine) checkSnapshots() error {
	switch i := e.installing; {
	case e.snapshotKnown.Index < e.log.purged.Index:
		return fmt.Errorf("purged up to %v, but the newest snapshot is of %v", e.log.purged, e.snapshotKnown)
	case e.snapshot.Last.Index > e.snapshotKnown.Index:
		return fmt.Errorf("offers a snapshot of %v, but the newest known is of %v", e.snapshot.Last, e.snapshotKnown)
	case i != nil && i.ref.Last.Index == 0:
		return errors.New("fetches a snapshot of nothing")
	case e.PurgeFloor() > e.Applicable():
		return fmt.Errorf("may purge up to %d, but only %d are committed and durable", e.PurgeFloor(), e.Applicable())
	}
	return nil
}

func (e *Engine) checkRole() error {
	f := &e.following
	switch {
	case f.removed && (e.campaign != nil || e.leading != nil):
		return errors.New("was told that it is removed, but stands or leads")
	case f.quiet && e.campaign != nil:
		return errors.New("stands although elections are switched off")
	case e.leading != nil && e.campaign != nil:
		return errors.New("leads and stands for election")
	case len(f.held) > 0 && !f.probing:
		return errors.New("votes are held, but no probe is under way")
	case e.campaign != nil:
		return e.checkCampaign()
	case e.leading != nil:
		return e.checkLeading()
	}
	if f.leader == e.cfg.Self {
		return errors.New("follows itself")
	}
	return nil
}

func (e *Engine) checkCampaign() error {
	c := e.campaign
	if c.pre {
		if c.term != e.vote.Term+1 {
			return fmt.Errorf("pre-vote for term %d in %v", c.term, e.vote)
		}
		return nil
	}
	if want := (Vote{Term: c.term, For: e.cfg.Self.ID}); e.vote != want {
		return fmt.Errorf("campaign in term %d with %v", c.term, e.vote)
	}
	if c.asked && !e.voteDurable() {
		return errors.New("votes are asked for before the own one is durable")
	}
	return nil
}

func (e *Engine) checkLeading() error {
	l := e.leading
	if want := (Vote{Term: l.term, For: e.cfg.Self.ID}); e.vote != want || e.following.leader != e.cfg.Self {
		return fmt.Errorf("leads in term %d with %v, follows %v", l.term, e.vote, e.following.leader)
	}
	if (!e.log.Has(l.start) && l.start.Index > e.log.purged.Index) || e.log.last.Term != l.term {
		return fmt.Errorf("leader's own first entry %v is not in its log up to %v", l.start, e.log.last)
	}
	members := 0
	for _, m := range e.Membership().Members {
		if m.Peer == e.cfg.Self {
			continue
		}
		members++
		t := l.targets[m.ID]
		if t == nil || t.peer != m.Peer {
			return fmt.Errorf("no target for member %v", m.Peer)
		}
		if !e.log.Has(t.matched) && t.matched.Index > e.log.purged.Index {
			return fmt.Errorf("%v matched %v, which is not in the leader's log", m.Peer, t.matched)
		}
		if t.worker == 0 || t.worker > e.workers || t.round > l.reads.begun {
			return fmt.Errorf("%v is served by worker %d of %d, in round %d of %d", m.Peer, t.worker, e.workers, t.round, l.reads.begun)
		}
	}
	if len(l.targets) != members {
		return fmt.Errorf("%d targets for %d members", len(l.targets), members)
	}
	if err := e.checkChange(); err != nil {
		return err
	}
	r := &l.reads
	if r.confirmed > r.begun || r.begun > r.confirmed+1 || (len(r.asked) > 0) != (r.begun > r.confirmed) {
		return fmt.Errorf("%d reads asked in round %d, confirmed %d", len(r.asked), r.begun, r.confirmed)
	}
	if len(r.waiting) > 0 && r.begun == r.confirmed && e.Serving() {
		return errors.New("reads wait although no round is under way")
	}
	return nil
}

// checkChange looks at what a leader does about the end of its reign, and of a change.
func (e *Engine) checkChange() error {
	current := e.memberships[len(e.memberships)-1]
	if e.Serving() && current.ID.Index <= e.commit {
		if current.Membership.Joint() {
			return fmt.Errorf("joint configuration %v is committed but not ended", current.ID)
		}
		if !current.Membership.IsVoter(e.cfg.Self) {
			return fmt.Errorf("leads although committed configuration %v leaves it out", current.ID)
		}
	}
	if x := e.leading.transfer; x != nil {
		if member, ok := current.Membership.Find(x.to.ID); !ok || member.Peer != x.to || !member.Voter || x.to == e.cfg.Self {
			return fmt.Errorf("hands over to %v, who cannot lead in %v", x.to, current.Membership)
		}
	}
	return nil
}

// Check returns what is wrong with the replicator's state, or nil. It is for tests, like Engine.Check.
func (r *Replicator) Check() error {
	var bytes, messages, heartbeats, offers int
	last := uint64(0)
	for _, f := range r.flights {
		if f.id <= last || f.id > r.lastID || f.epoch > r.epoch {
			return fmt.Errorf("message %d of epoch %d after %d", f.id, f.epoch, last)
		}
		last = f.id
		switch {
		case f.heartbeat:
			heartbeats++
		case f.install:
			offers++
		case f.epoch == r.epoch:
			bytes += f.bytes
			messages++
		}
	}
	switch {
	case bytes != r.bytes || messages != r.messages || heartbeats != r.heartbeats:
		return fmt.Errorf("%d bytes in %d messages and %d heartbeats in flight, counted as %d, %d and %d",
			bytes, messages, heartbeats, r.bytes, r.messages, r.heartbeats)
	case offers > 1 || (offers == 1) != r.offering:
		return fmt.Errorf("%d offers in flight, offering %t", offers, r.offering)
	case r.offering && (!r.needs || r.progress.Installing.Index == 0), !r.needs && (r.progress.NeedSnapshot || r.progress.Installing.Index > 0):
		return fmt.Errorf("needs a snapshot: %t, reported %t, offering %t, installing %v", r.needs, r.progress.NeedSnapshot, r.offering, r.progress.Installing)
	case r.next <= r.matched.Index || r.next > r.target.Last.Index+1:
		return fmt.Errorf("next is %d, matched %v of %v", r.next, r.matched, r.target.Last)
	case r.probing && r.messages > 1:
		return fmt.Errorf("%d messages under way while probing", r.messages)
	case r.messages > r.cfg.MaxInFlight:
		return fmt.Errorf("%d messages in flight, most %d", r.messages, r.cfg.MaxInFlight)
	case r.matched != r.progress.Matched:
		return fmt.Errorf("matched %v, reported %v", r.matched, r.progress.Matched)
	}
	return nil
}
