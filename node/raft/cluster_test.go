package raft

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// cluster is a few engines and their replicators, whose messages a test delivers by hand. What happens is told in lines.
type cluster struct {
	*testing.T
	now        time.Time
	membership *Membership
	nodes      []*clusterNode
	mail       []*letter
	isolated   map[NodeID]bool
	// hidden: NATS at the first knows nothing of the second.
	hidden     map[[2]NodeID]bool
	replicator ReplicatorConfig
	lines      strings.Builder
	reads      ReadID
	// snapshots are complete, where all nodes can fetch them.
	snapshots map[SnapshotRef]MembershipAt
	calls     []*call
	// committed and leaders are what was ever seen: log ids by index, leaders by term.
	committed map[uint64]LogID
	leaders   map[uint64]NodeID
}

// clusterNode is one node: what it runs, and its disk.
type clusterNode struct {
	c    *cluster
	self Peer
	// genesis is nil for a node that waits to be added.
	genesis *Membership
	// The disk: what is written, and what is durable of it. The log begins after base, whose configuration is baseMembership.
	log            []Entry
	vote           Vote
	base           LogID
	baseMembership MembershipAt
	durable        struct {
		log  []Entry
		vote Vote
	}
	unsynced []*Write
	slow     bool
	commit   uint64
	// applied is what the state machine has durably.
	applied uint64
	// fetching is a snapshot that the engine wants.
	fetching *SnapshotRef
	// needed is the snapshot that was last found too old.
	needed *SnapshotRef

	up      bool
	boot    uint64
	engine  *Engine
	workers []*clusterWorker
	to      ReplyTo
	replies map[ReplyTo]func(any)
	was     string
	// What was told last.
	config  string
	removed bool
}

type clusterWorker struct {
	target Target
	r      *Replicator
	told   Progress
}

func newCluster(t *testing.T, m *Membership) *cluster {
	c := &cluster{T: t, now: zero, membership: m, isolated: map[NodeID]bool{}, hidden: map[[2]NodeID]bool{},
		snapshots: map[SnapshotRef]MembershipAt{}, committed: map[uint64]LogID{}, leaders: map[uint64]NodeID{},
		replicator: ReplicatorConfig{HeartbeatInterval: heartbeat, MaxInFlight: 8, MaxInFlightBytes: 1 << 20, MaxMessageBytes: 1 << 20}}
	for _, member := range m.Members {
		n := &clusterNode{c: c, self: member.Peer, genesis: m, baseMembership: MembershipAt{Membership: m}}
		c.nodes = append(c.nodes, n)
	}
	return c
}

func (c *cluster) node(id NodeID) *clusterNode {
	c.Helper()
	for _, n := range c.nodes {
		if n.self.ID == id {
			return n
		}
	}
	c.Fatalf("no node %s", id)
	return nil
}

func (c *cluster) say(format string, args ...any) { fmt.Fprintf(&c.lines, format+"\n", args...) }

// told returns what was said since the last call.
func (c *cluster) told() string {
	s := c.lines.String()
	c.lines.Reset()
	return s
}

// start runs a node on what is durable.
func (n *clusterNode) start() {
	c := n.c
	n.log, n.vote, n.unsynced = slices.Clone(n.durable.log), n.durable.vote, nil
	n.up, n.boot, n.workers, n.replies = true, n.boot+1, nil, map[ReplyTo]func(any){}
	n.fetching = nil
	v, err := NewLogView(n.base, n.last(), n.Term)
	if err != nil {
		c.Fatal(err)
	}
	committed := n.applied
	n.commit = committed
	var memberships []MembershipAt
	if n.baseMembership.Membership != nil {
		memberships = append(memberships, n.baseMembership)
	}
	for _, entry := range n.log {
		if entry.Kind == EntryMembership {
			if entry.ID.Index <= committed {
				memberships = nil
			}
			memberships = append(memberships, MembershipAt{ID: entry.ID, Membership: entry.Membership})
		}
	}
	term, err := n.Term(committed)
	if err != nil {
		c.Fatal(err)
	}
	n.engine = New(Config{Self: n.self, HeartbeatInterval: heartbeat, ElectionTimeout: timeout, Rand: rand.New(rand.NewPCG(uint64(n.self.Incarnation), 1))},
		Restored{Vote: n.vote, Log: v, Committed: LogID{Term: term, Index: committed}, Memberships: memberships}, c.now)
	n.was, n.config, n.removed = n.state(), n.engine.Membership().String(), false
	n.flush()
}

// stop ends a node's process. What is not durable is lost.
func (n *clusterNode) stop() { n.up, n.engine, n.workers = false, nil, nil }

func (n *clusterNode) last() LogID {
	if len(n.log) == 0 {
		return n.base
	}
	return n.log[len(n.log)-1].ID
}

// Term makes the node's log a LogTerms.
func (n *clusterNode) Term(index uint64) (uint64, error) {
	switch {
	case index == n.base.Index:
		return n.base.Term, nil
	case index < n.base.Index:
		return 0, ErrPurged
	case index > n.last().Index:
		return 0, errors.New("out of range")
	}
	return n.log[index-n.base.Index-1].ID.Term, nil
}

func (n *clusterNode) state() string {
	return fmt.Sprintf("%v in term %d", n.engine.Role(), n.engine.Vote().Term)
}

// tick judges the timers of the node.
func (n *clusterNode) tick() {
	if n.up {
		n.engine.Tick(n.c.now)
		n.flush()
	}
}

// flush does what the engine says, and lets the workers send.
func (n *clusterNode) flush() {
	c := n.c
	for again := true; again; {
		again = false
		commit := n.engine.Commit()
		out := n.engine.Output()
		if err := n.engine.Check(); err != nil {
			c.Fatalf("%s: %v\n%s", n.self.ID, err, c.told())
		}
		if now := n.state(); now != n.was {
			n.was = now
			c.say("%s is %s", n.self.ID, now)
		}
		if commit != n.commit {
			n.commit = commit
			c.say("%s commits %d", n.self.ID, commit)
		}
		if now := n.engine.Membership().String(); now != n.config {
			n.config = now
			c.say("%s: configuration %s", n.self.ID, now)
		}
		if removed := n.engine.Removed(); removed != n.removed {
			n.removed = removed
			c.say("%s: removed %t", n.self.ID, removed)
		}
		if out.Fetch != nil {
			n.fetching = out.Fetch
			c.say("%s fetches the snapshot of %v", n.self.ID, out.Fetch.Last)
		}
		if need := n.engine.Snapshot(); out.NeedSnapshot && (n.needed == nil || *n.needed != need) {
			n.needed = &need
			c.say("%s needs a newer snapshot", n.self.ID)
		}
		if out.Write != nil {
			again = n.write(out.Write)
		}
		n.applied = max(n.applied, n.engine.Applicable())
		c.checkCommitted(n)
		n.send(out)
		if out.Replicate {
			n.replicate()
		}
		for _, r := range out.Reads {
			if r.Lost {
				c.say("%s: read %d is lost", n.self.ID, r.ID)
			} else {
				c.say("%s: read %d at index %d", n.self.ID, r.ID, r.Index)
			}
		}
		for _, v := range out.Violations {
			c.say("%s refuses: %s", n.self.ID, v)
		}
	}
	told := false
	for _, w := range n.workers {
		n.pump(w)
		if p := w.r.Progress(); p != w.told { // a snapshot is needed, or offered
			w.told, told = p, true
			n.engine.Progress(c.now, p)
		}
	}
	if told {
		n.flush()
	}
}

// write changes the log and makes it durable, unless the disk is slow. It reports whether the engine was told.
func (n *clusterNode) write(w *Write) bool {
	applyWrite(n.base.Index, &n.log, &n.vote, w)
	n.unsynced = append(n.unsynced, w)
	if n.slow {
		n.c.say("%s writes, not durable yet: %s", n.self.ID, describeWrite(w))
		return false
	}
	if w.TruncateFrom != 0 {
		n.c.say("%s truncates from %d", n.self.ID, w.TruncateFrom)
	}
	n.sync(len(n.unsynced))
	return true
}

// sync makes the oldest writes durable.
func (n *clusterNode) sync(count int) {
	for _, w := range n.unsynced[:count] {
		applyWrite(n.base.Index, &n.durable.log, &n.durable.vote, w)
	}
	seq := n.unsynced[count-1].Seq
	n.unsynced = n.unsynced[count:]
	n.engine.Durable(n.c.now, seq)
}

func applyWrite(base uint64, log *[]Entry, vote *Vote, w *Write) {
	if w.Vote != nil {
		*vote = *w.Vote
	}
	if w.TruncateFrom != 0 {
		*log = slices.Clone((*log)[:w.TruncateFrom-base-1])
	}
	*log = append(*log, w.Append...)
}

func describeWrite(w *Write) string {
	var parts []string
	if w.Vote != nil {
		parts = append(parts, w.Vote.String())
	}
	if w.TruncateFrom != 0 {
		parts = append(parts, fmt.Sprintf("truncate from %d", w.TruncateFrom))
	}
	if len(w.Append) > 0 {
		parts = append(parts, "append "+describeEntries(w.Append))
	}
	return strings.Join(parts, ", ")
}

func describeEntries(entries []Entry) string {
	if len(entries) > 6 {
		return fmt.Sprintf("[%v ... %v]", entries[0].ID, entries[len(entries)-1].ID)
	}
	ids := make([]LogID, len(entries))
	for i, e := range entries {
		ids[i] = e.ID
	}
	return fmt.Sprint(ids)
}

// replicate starts and stops workers as the engine wants it.
func (n *clusterNode) replicate() {
	targets := n.engine.Replication()
	var kept []*clusterWorker
	for _, t := range targets {
		i := slices.IndexFunc(n.workers, func(w *clusterWorker) bool { return w.target.Worker == t.Worker })
		if i < 0 {
			kept = append(kept, &clusterWorker{target: t, r: NewReplicator(n.c.replicator, t, n.c.now)})
			continue
		}
		n.workers[i].target = t
		n.workers[i].r.Update(t)
		kept = append(kept, n.workers[i])
	}
	n.workers = kept
}

// pump posts what a worker has to send.
func (n *clusterNode) pump(w *clusterWorker) {
	c := n.c
	for {
		s, ok := w.r.Next(c.now)
		if err := w.r.Check(); err != nil {
			c.Fatalf("%s: replicator for %s: %v\n%s", n.self.ID, w.target.Peer.ID, err, c.told())
		}
		if !ok {
			return
		}
		if s.Install {
			w.r.Sent(c.now, s, s.Snapshot.Last, s.Snapshot.Last, 0)
			n.ask(w, s, fmt.Sprintf("install term %d snapshot of %v", w.target.Term, s.Snapshot.Last),
				&InstallRequest{Term: w.target.Term, Leader: n.self, Snapshot: s.Snapshot})
			continue
		}
		req := &AppendRequest{Term: w.target.Term, Leader: n.self, Prev: s.Matched, Commit: s.Commit, Successors: w.target.Successors, Snapshot: w.target.SnapshotKnown}
		last := s.Matched
		if !s.Heartbeat {
			term, err := n.Term(s.Prev)
			if errors.Is(err, ErrPurged) {
				w.r.Purged(n.base)
				continue
			}
			req.Prev = LogID{Term: term, Index: s.Prev}
			hi := min(s.Hi, s.Lo+uint64(s.MaxBytes)) // entries of one byte
			req.Entries = slices.Clone(n.log[s.Lo-n.base.Index-1 : hi-n.base.Index-1])
			last = req.Entries[len(req.Entries)-1].ID
		}
		w.r.Sent(c.now, s, req.Prev, last, len(req.Entries))
		text := fmt.Sprintf("append term %d after %v %s commit %d", req.Term, req.Prev, describeEntries(req.Entries), req.Commit)
		if s.Heartbeat {
			text = fmt.Sprintf("heartbeat term %d at %v commit %d", req.Term, req.Prev, req.Commit)
		}
		n.ask(w, s, text, req)
	}
}

// ask posts a worker's message.
func (n *clusterNode) ask(w *clusterWorker, s Send, text string, req any) {
	c := n.c
	c.request(n, w.target.Peer, text, req, func(a any) {
		if !slices.Contains(n.workers, w) {
			return
		}
		resp, ok := a.(*AppendResponse)
		if !ok {
			w.r.Failed(s.ID)
			n.engine.Progress(c.now, w.r.Progress())
			return
		}
		p, err := w.r.Answered(s.ID, resp, c.node(w.target.Peer.ID).boot, n)
		if err != nil {
			c.Fatal(err)
		}
		n.engine.Progress(c.now, p)
	})
}

// checkCommitted looks whether a node contradicts what was committed anywhere, or who led.
func (c *cluster) checkCommitted(n *clusterNode) {
	term := n.engine.Vote().Term
	if n.engine.Role() == Leader {
		if other, ok := c.leaders[term]; ok && other != n.self.ID {
			c.Fatalf("%s and %s lead in term %d\n%s", other, n.self.ID, term, c.told())
		}
		c.leaders[term] = n.self.ID
	}
	for index := n.base.Index; index <= n.engine.Commit(); index++ {
		at, err := n.Term(index)
		if err != nil {
			c.Fatalf("%s has no entry %d: %v\n%s", n.self.ID, index, err, c.told())
		}
		id := LogID{Term: at, Index: index}
		if known, ok := c.committed[index]; ok && known != id {
			c.Fatalf("%s has committed %v, others %v\n%s", n.self.ID, id, known, c.told())
		}
		c.committed[index] = id
	}
}
