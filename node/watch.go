package node

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"quorate/node/raft"
)

// coreState is what RaftCore publishes of itself after each pass that changed something.
type coreState struct {
	role       Role
	term       uint64
	leader     raft.NodeID
	serving    bool
	membership *raft.Membership
	// membershipID is the log id of its entry.
	membershipID raft.LogID
	setting      raft.SettingAt
	// versions are those of the newest setting that was applied.
	versions     raft.Versions
	snapshot     SnapshotStatus
	transferring bool
	removed      bool
	last         uint64
	durable      uint64
	committed    uint64
	applied      uint64
	quorumAck    time.Time
	// electionTimeout is that of the settings in force; see Reload.
	electionTimeout time.Duration
	targets         []raft.TargetStatus
	violations      map[string]uint64
	suspects        []string
	failure         error
	// stood is the newest term in which this node voted for itself: the role does not tell that from a pre-vote.
	stood uint64
}

// sameView reports whether a watcher would see no change.
func (s *coreState) sameView(other *coreState) bool {
	return s.role == other.role && s.term == other.term && s.leader == other.leader && s.serving == other.serving &&
		s.membership == other.membership && s.setting == other.setting && s.transferring == other.transferring && s.removed == other.removed && s.failure == other.failure
}

// watch hands what RaftCore publishes to those who look on. A watcher sees a change after it has happened, never before.
type watch struct {
	state atomic.Pointer[coreState]

	mu sync.Mutex // guards watchers and ended, and sending to watchers
	// watchers, and whether each wants to hear of every change, however small.
	watchers map[chan struct{}]bool
	ended    bool
	fine     atomic.Int32
}

func (w *watch) init(s *coreState) {
	w.state.Store(s)
	w.watchers = map[chan struct{}]bool{}
}

func (w *watch) set(s *coreState) {
	old := w.state.Swap(s)
	if same := s.sameView(old); !same || w.fine.Load() > 0 {
		w.notify(same)
	}
}

// notify wakes all watchers, or those that want to hear of every change.
func (w *watch) notify(onlyFine bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch, fine := range w.watchers {
		if onlyFine && !fine {
			continue
		}
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// elsewhere tells of a change in the status that is not RaftCore's: of the connections, or in the making of the cluster.
func (w *watch) elsewhere() {
	if w.fine.Load() > 0 {
		w.notify(true)
	}
}

// add returns a channel that gets a value after changes; it is closed when the node ends.
func (w *watch) add(fine bool) chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	ch := make(chan struct{}, 1)
	ch <- struct{}{}
	if w.ended {
		close(ch)
		return ch
	}
	w.watchers[ch] = fine
	if fine {
		w.fine.Add(1)
	}
	return ch
}

func (w *watch) remove(ch chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if fine, ok := w.watchers[ch]; ok {
		if fine {
			w.fine.Add(-1)
		}
		delete(w.watchers, ch)
		close(ch)
	}
}

func (w *watch) end(err error) {
	s := *w.state.Load()
	s.role, s.leader, s.serving, s.failure = RoleStopped, "", false, err
	w.state.Store(&s)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	for ch := range w.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
		close(ch)
	}
	clear(w.watchers)
}

func (n *Node) initialStatus(r restored) *coreState {
	s := &coreState{role: RoleWaiting, last: r.log.Last().Index, durable: r.log.Last().Index, committed: r.applied.Index, applied: r.applied.Index, term: n.log.Vote().Term, stood: stoodIn(n.log.Vote(), n.self.ID, 0), setting: r.settings[len(r.settings)-1], versions: r.settings[0].Setting.Versions}
	if len(r.memberships) > 0 {
		at := r.memberships[len(r.memberships)-1]
		s.membership, s.membershipID = at.Membership, at.ID
	}
	return s
}

// stoodIn is the newest term in which a node voted for itself: that of its vote, unless that is somebody else's.
func stoodIn(v raft.Vote, self raft.NodeID, before uint64) uint64 {
	if v.For != self {
		return before
	}
	return v.Term
}

// observe publishes how RaftCore stands. What costs something to put together is renewed on changes and heartbeats only.
func (c *raftCore) observe(changed bool) {
	e := c.engine
	old := c.watch.state.Load()
	leading := e.Role() == raft.Leader
	if !changed && old.applied == c.applied.Index && old.durable == e.DurableIndex() && old.snapshot == c.snapshots.status && !leading {
		return
	}
	s := &coreState{
		role:       RoleFollower,
		term:       e.Vote().Term,
		stood:      stoodIn(e.Vote(), c.self.ID, old.stood),
		leader:     e.Leader().ID,
		serving:    e.Serving(),
		membership: e.Membership(),

		membershipID: e.MembershipAt().ID,
		setting:      e.SettingAt(),
		versions:     c.appliedSetting.Setting.Versions,
		snapshot:     c.snapshots.status,
		transferring: e.Transferring(),
		removed:      e.Removed() || c.leftOut(),

		last:       e.LastLogID().Index,
		durable:    e.DurableIndex(),
		committed:  e.Commit(),
		applied:    c.applied.Index,
		targets:    old.targets,
		violations: c.violations,
		suspects:   old.suspects,

		electionTimeout: c.cfg.ElectionTimeout,
	}
	switch e.Role() {
	case raft.Leader:
		s.role = RoleLeader
		s.quorumAck, _ = e.QuorumAck()
		if now := time.Now(); changed || now.After(c.targetsAt) {
			c.targetsAt = now.Add(c.cfg.HeartbeatInterval)
			s.targets = e.Targets()
		}
	case raft.PreCandidate, raft.Candidate:
		s.role = RoleCandidate
	case raft.Follower:
		if !s.membership.IsVoter(c.self) {
			s.role = RoleLearner
		}
	}
	if !leading {
		s.targets = nil
	}
	s.suspects = c.suspects
	c.metrics.changed(old, s)
	c.watch.set(s)
	if s.role != old.role || s.leader != old.leader {
		c.logger.Info("role", "role", s.role, "leader", s.leader)
	}
}

// leftOut reports whether the committed configuration that this node knows is without it, and no leader says otherwise. A leader that removed
// itself never asks anybody for a vote, and so nobody tells it.
func (c *raftCore) leftOut() bool {
	at := c.engine.MembershipAt()
	return c.engine.Role() != raft.Leader && c.engine.Leader() == (raft.Peer{}) && at.ID.Index <= c.engine.Commit() &&
		at.Membership != nil && len(at.Membership.Members) > 0 && !at.Membership.Contains(c.self)
}

// Status returns what the node knows now. It does not block.
func (n *Node) Status() Status {
	s := n.watch.state.Load()
	status := Status{
		Cluster: n.cfg.Cluster, ID: n.self.ID, Incarnation: n.self.Incarnation.String(), Boot: fmt.Sprintf("%016x", n.boot),
		Role: s.role, Term: s.term, Leader: s.leader, Serving: s.serving,
		WaitingFor:   n.gather.waitingFor(),
		Transferring: s.transferring, Removed: s.removed, MembershipID: s.membershipID, Setting: shownSetting(s.setting),
		Versions: s.versions, Speaks: n.cfg.speaks(),
		LastIndex: s.last, DurableIndex: s.durable, CommittedIndex: s.committed, AppliedIndex: s.applied,
		MaxEntryBytes: n.MaxCommandBytes(),
		NATS:          n.links.status(),
		Refused:       map[string]uint64{},
		Warnings:      append([]string(nil), s.suspects...),
	}
	if genesis := n.gather.known(); genesis != nil {
		status.ClusterID = genesis.ClusterID().String()
	}
	status.Snapshot = s.snapshot
	if s.snapshot.Fetching > 0 {
		status.Snapshot.FetchedBytes, status.Snapshot.FetchBytes = n.fetchProgress.done.Load(), n.fetchProgress.total.Load()
	}
	if warning := n.diskWarning(); warning != "" {
		status.Warnings = append(status.Warnings, warning)
	}
	if s.snapshot.Problem != "" {
		status.Warnings = append(status.Warnings, s.snapshot.Problem)
	}
	if s.role != RoleStopped {
		status.PurgedIndex = n.log.Purged().Index
		status.OldestEntryAge = n.oldestEntryAge(status.PurgedIndex)
	}
	if !s.quorumAck.IsZero() {
		status.QuorumAckAge = time.Since(s.quorumAck)
	}
	if l := n.leased.Load(); l != nil {
		status.LeaseLeft = max(0, time.Until(l.Until))
	}
	maps.Copy(status.Refused, n.links.refused())
	maps.Copy(status.Refused, s.violations)
	if s.membership != nil {
		for _, m := range s.membership.Members {
			member := MemberStatus{ID: m.ID, Incarnation: m.Incarnation.String(), Voter: m.Voter, Outgoing: m.Outgoing}
			for _, t := range s.targets {
				if t.Peer == m.Peer {
					member.Matched = t.Matched.Index
					member.Reachable = t.Reachable
					if t.Answered {
						member.Speaks = &t.Versions
					}
				}
			}
			if s.role == RoleLeader && m.Peer == n.self {
				member.Matched, member.Reachable, member.Speaks = s.durable, true, &status.Speaks
			}
			status.Members = append(status.Members, member)
		}
	}
	if s.removed {
		status.Warnings = append(status.Warnings, "this node was removed from the cluster: stop it, or add it again (quorate member add)")
	}
	if !status.NATS.Connected && n.cfg.Transport == nil {
		status.Warnings = append(status.Warnings, "not connected to NATS")
	}
	if room := n.links.maxRequestBytes(); status.NATS.Connected && room > 0 && room < status.MaxEntryBytes+EntryEnvelope {
		status.Warnings = append(status.Warnings, fmt.Sprintf("the NATS server takes messages of %d bytes, less than the cluster's largest entry of %d needs: raise its max_payload to %d", room, status.MaxEntryBytes, status.MaxEntryBytes+EntryEnvelope))
	}
	if s.failure != nil {
		status.Error = s.failure.Error()
	}
	return status
}

// Watch returns a channel that gets the newest status after each change of role, term, leader, Serving, membership or setting, the
// present one first. A slow reader misses intermediate ones, never the newest. The channel is closed when the
// node stops; stop ends the watch before that.
func (n *Node) Watch() (changes <-chan Status, stop func()) {
	signal := n.watch.add(false)
	out := make(chan Status)
	quit := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(out)
		for range signal {
			select {
			case out <- n.Status():
			case <-quit:
				return
			}
		}
	}()
	var once sync.Once
	return out, func() {
		once.Do(func() {
			close(quit)
			n.watch.remove(signal)
			<-ended
		})
	}
}

// WaitLeader blocks until a leader is known and returns its id. Errors: ErrStopped with the cause, or the context's.
func (n *Node) WaitLeader(ctx context.Context) (raft.NodeID, error) {
	status, err := n.Wait(ctx, func(s Status) bool { return s.Leader != "" })
	if err != nil {
		return "", fmt.Errorf("wait for a leader: %w", err)
	}
	return status.Leader, nil
}

// Wait blocks until the status meets the condition, and returns it. The condition is looked at after each change of anything in
// the status, but intermediate ones may be missed. Errors: ErrStopped with the cause, or the context's, with what was seen last.
func (n *Node) Wait(ctx context.Context, condition func(Status) bool) (Status, error) {
	signal := n.watch.add(true)
	defer n.watch.remove(signal)
	for {
		select {
		case _, ok := <-signal:
			status := n.Status()
			if condition(status) {
				return status, nil
			}
			if !ok {
				<-n.done
				return status, fmt.Errorf("%w: %w", ErrStopped, n.err)
			}
		case <-ctx.Done():
			status := n.Status()
			return status, fmt.Errorf("%w (node is %s in term %d, leader %q, waiting for [%s], NATS connected: %t)",
				ctx.Err(), status.Role, status.Term, status.Leader, joinIDs(status.WaitingFor), status.NATS.Connected)
		}
	}
}

// waitState is Wait on what RaftCore publishes.
func (n *Node) waitState(ctx context.Context, condition func(*coreState) bool) (*coreState, error) {
	signal := n.watch.add(true)
	defer n.watch.remove(signal)
	for {
		select {
		case _, ok := <-signal:
			if s := n.watch.state.Load(); condition(s) {
				return s, nil
			}
			if !ok {
				<-n.done
				return nil, fmt.Errorf("%w: %w", ErrStopped, n.err)
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// oldestEntryAge is by this node's clock. It is zero when the log is empty, or is being purged just then.
func (n *Node) oldestEntryAge(purged uint64) time.Duration {
	entries, err := n.log.Entries(nil, purged+1, purged+2, 1)
	if err != nil || len(entries) == 0 {
		return 0
	}
	return max(0, time.Since(time.Unix(0, entries[0].Time)))
}
