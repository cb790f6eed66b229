package sim

import (
	"fmt"
	"time"

	"quorate/node/raft"
)

// store is the object store: snapshots that were completed, the newest last. It outlives all nodes, but now and then loses something.
type store struct {
	snapshots []stored
	// newest is the greatest index that ever was complete in it.
	newest uint64
	made   int
}

// stored is one snapshot.
type stored struct {
	ref        raft.SnapshotRef
	membership raft.MembershipAt
	setting    raft.SettingAt
	state      machineImage
}

func (s *store) find() (stored, bool) {
	if len(s.snapshots) == 0 {
		return stored{}, false
	}
	return s.snapshots[len(s.snapshots)-1], true
}

func (s *store) get(ref raft.SnapshotRef) (stored, bool) {
	for _, kept := range s.snapshots {
		if kept.ref == ref {
			return kept, true
		}
	}
	return stored{}, false
}

// build takes a view of the state and has it in the store some time later, if the node lives so long.
func (p *process) build() {
	w := p.w
	if p.building || p.applied.Index == 0 {
		return
	}
	p.building = true
	w.store.made++
	s := stored{ref: raft.SnapshotRef{Name: fmt.Sprint(w.store.made), Last: p.applied}, membership: p.membershipAt(p.applied), state: p.snapshot()}
	s.setting = p.settingsTo(p.applied)[0]
	life := p.life
	length := w.between(0, w.plan.engine.ElectionTimeout)
	if w.chance(0.5) { // small
		length = w.between(0, w.plan.delay)
	}
	w.after(length, func() {
		if p.life != life {
			return
		}
		p.building = false
		w.happened(snapshotBuilt)
		w.store.snapshots = append(w.store.snapshots, s)
		w.store.newest = max(w.store.newest, s.ref.Last.Index)
		if len(w.store.snapshots) > 3 {
			w.store.snapshots = w.store.snapshots[1:] // swept
		}
		w.trace.add(w.now, "SNAPSHOT", p.index, -1, s.ref.Last.Index, s.ref.Last.Term, nil)
		p.tell(func(e *raft.Engine) { e.SetSnapshot(s.ref) })
	})
}

// membershipAt is the newest configuration up to an entry.
func (p *process) membershipAt(id raft.LogID) raft.MembershipAt {
	for i := id.Index; i > 0; i-- {
		if entry := &p.disk.visible.entries[i-1]; entry.Kind == raft.EntryMembership {
			return raft.MembershipAt{ID: entry.ID, Membership: entry.Membership}
		}
	}
	return raft.MembershipAt{Membership: p.w.plan.membership}
}

// fetch brings a snapshot here. It may take long, fail, or find nothing.
func (p *process) fetch(ref raft.SnapshotRef) {
	w := p.w
	life := p.life
	length := w.between(0, w.plan.engine.ElectionTimeout/2)
	switch {
	case w.chance(0.3): // small
		length = w.between(0, w.plan.delay)
	case !w.healed && w.chance(0.3): // long enough for another leader, who has what the log here lacks
		length = w.between(0, 5*w.plan.engine.ElectionTimeout)
	}
	w.after(length, func() {
		if p.life != life {
			return
		}
		s, ok := w.store.get(ref)
		switch {
		case !ok:
			w.happened(snapshotGone)
			p.tell(func(e *raft.Engine) { e.FetchFailed(p.time(), ref, true) })
		case !w.healed && w.chance(0.2):
			w.happened(fetchFails)
			p.tell(func(e *raft.Engine) { e.FetchFailed(p.time(), ref, false) })
		default:
			p.inbox.fetched = append(p.inbox.fetched, s)
			p.wake()
		}
	})
}

// install puts a snapshot in the place of state and log, the state first. It returns false if the node crashed in between.
func (p *process) install(fetched []stored) bool {
	w := p.w
	for _, s := range fetched {
		if current, ok := p.engine.Installing(); !ok || current != s.ref {
			continue
		}
		if !p.engine.MayInstall(s.ref.Last) {
			p.engine.FetchFailed(p.time(), s.ref, false)
			continue
		}
		if versions := s.setting.Setting.Versions; !versions.Within(p.speaks) {
			p.halt("the snapshot's setting has " + versions.String())
			return false
		}
		w.oracle.installs(p, s)
		p.disk.flushed, p.disk.state, p.applied = s.ref.Last, s.state, s.ref.Last
		p.load(s.state)
		if !w.healed && w.chance(0.2) {
			w.happened(crashWhileInstalling)
			w.crashFor(p, w.between(0, w.plan.engine.ElectionTimeout))
			return false
		}
		if p.disk.visible.has(s.ref.Last) && s.ref.Last.Index > p.disk.visible.purged.Index {
			if s.ref.Last.Index < p.disk.visible.last().Index {
				w.happened(installedKeepingATail)
			}
			p.disk.settle()
			p.disk.purge(s.ref.Last)
		} else {
			p.disk.reset(s.ref.Last)
		}
		w.trace.add(w.now, "INSTALLS", p.index, -1, s.ref.Last.Index, s.ref.Last.Term, nil)
		w.happened(snapshotInstalled)
		if p.engine.Membership().IsVoter(p.self) {
			w.happened(installedByAVoter)
		}
		p.engine.Installed(p.time(), s.ref.Last, s.membership, s.setting)
		w.oracle.checkSetting(p)
		p.settle()
	}
	return true
}

// keepHouse builds snapshots and purges the log, as the plan has it; and now and then the store loses its newest.
func (p *process) keepHouse() {
	w := p.w
	if !w.plan.snapshots || w.healed {
		return
	}
	if p.engine.Role() == raft.Leader && w.chance(w.plan.builds) {
		p.build()
	}
	if n := len(w.store.snapshots); n > 0 && w.chance(0.0005) {
		w.store.snapshots = w.store.snapshots[:n-1]
	}
	if !w.chance(w.plan.purges) {
		return
	}
	to := min(p.engine.PurgeFloor(), p.disk.flushed.Index)
	if w.chance(0.5) {
		to -= min(to, uint64(w.rng.IntN(20))) // keep some
	}
	if to > p.disk.visible.purged.Index {
		id := p.disk.visible.entries[to-1].ID
		w.oracle.purges(p, id)
		w.happened(logPurged)
		p.disk.purge(id)
		p.engine.Purged(id)
		w.trace.add(w.now, "PURGES", p.index, -1, id.Index, id.Term, nil)
	}
}

// readIndexRequest asks a leader for a read index, for a read at another node.
type readIndexRequest struct{}

func (readIndexRequest) String() string { return "read index" }

type readIndexResponse struct{ index uint64 }

// readFor begins a read for a peer.
func (p *process) readFor(now time.Time, to raft.ReplyTo) {
	if p.engine.Role() != raft.Leader {
		waiting := p.replies[to]
		delete(p.replies, to)
		waiting.reply(nil, errBusy)
		return
	}
	p.lastRead++
	p.reads[p.lastRead] = readOp{peer: to}
	p.engine.Read(now, p.lastRead)
}

// readThroughLeader is a read at a node that does not lead.
func (p *process) readThroughLeader(op readOp) {
	leader := p.engine.Leader()
	if leader == (raft.Peer{}) || leader == p.self {
		return
	}
	p.w.net.call(p, leader, readIndexRequest{}, p.w.plan.engine.ElectionTimeout, func(a answer) {
		if response, ok := a.response.(readIndexResponse); ok {
			op.index = response.index
			p.w.oracle.read(p, op)
			p.w.happened(p.readHere())
			p.w.clients.answered++
			p.answerAt(op)
		}
	})
}

// readHere says what kind of node it is that does not lead and answers a read.
func (p *process) readHere() happening {
	switch m := p.engine.Membership(); {
	case m.IsVoter(p.self):
		return readAtVoter
	case m.Contains(p.self):
		return readAtLearner
	}
	return readAtStranger
}
