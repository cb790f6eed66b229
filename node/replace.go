package node

import (
	"time"

	"quorate/node/raft"
)

// replaceGone gives the place of a voter that has been gone for Config.ReplaceAfter to a learner that has caught up. It looks each time
// the leader publishes the state of its targets; the engine refuses what would not be safe now.
func (c *raftCore) replaceGone(now time.Time) {
	if c.cfg.ReplaceAfter <= 0 || !c.engine.Serving() || now.Before(c.replaceAt) {
		return
	}
	c.replaceAt = now.Add(c.cfg.HeartbeatInterval)
	current := c.engine.MembershipAt()
	gone, standby, ok := c.gone(now, current.Membership)
	if !ok {
		return
	}
	change := raft.Change{If: &current.ID}
	for _, p := range current.Membership.Voters() {
		if p != gone {
			change.Voters = append(change.Voters, p)
		}
	}
	change.Voters = append(change.Voters, standby)
	for _, p := range current.Membership.Learners() {
		if p != standby {
			change.Learners = append(change.Learners, p)
		}
	}
	if _, err := c.engine.ChangeMembership(now, change); err != nil {
		c.logger.Debug("cannot replace a voter that is gone yet", "gone", gone.ID, "by", standby.ID, "error", err)
		return
	}
	c.logger.Warn("a voter that was gone for long is replaced by a learner", "gone", gone.ID, "by", standby.ID, "after", c.cfg.ReplaceAfter)
}

// gone finds the voter that has been gone longest, and the learner that is the most caught up.
func (c *raftCore) gone(now time.Time, m *raft.Membership) (gone, standby raft.Peer, ok bool) {
	oldest, newest := now.Add(-c.cfg.ReplaceAfter), uint64(0)
	for _, t := range c.engine.Targets() {
		switch {
		case m.IsVoter(t.Peer) && t.Acked.Before(oldest):
			gone, oldest = t.Peer, t.Acked
		case !m.IsVoter(t.Peer) && t.Reachable && t.Matched.Index > newest:
			standby, newest = t.Peer, t.Matched.Index
		}
	}
	return gone, standby, gone != (raft.Peer{}) && standby != (raft.Peer{})
}
