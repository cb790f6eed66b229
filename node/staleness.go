package node

import (
	"sync/atomic"
	"time"
)

// lastHeard is when this node last heard of a leader or, as leader, of its quorum: by both clocks, since the wall clock may be set back, and
// the other stands still while the machine sleeps. RaftCore notes it, anyone may ask.
type lastHeard struct {
	// began is any time before; the monotonic clock is counted from it.
	began time.Time
	// monotonic is zero for never.
	monotonic, wall atomic.Int64
}

// note is for RaftCore alone. Who led until now heard of its last leader long before.
func (h *lastHeard) note(at time.Time) {
	if since := int64(max(1, at.Sub(h.began))); since >= h.monotonic.Load() {
		h.wall.Store(at.UnixNano())
		h.monotonic.Store(since)
	}
}

// ago is how long ago that was, and false if it never was.
func (h *lastHeard) ago(now time.Time) (time.Duration, bool) {
	return h.between(now.Sub(h.began), now.UnixNano())
}

// between is ago by what the two clocks show now: whichever tells of more.
func (h *lastHeard) between(monotonic time.Duration, wall int64) (time.Duration, bool) {
	at := h.monotonic.Load()
	if at == 0 {
		return 0, false
	}
	return max(0, monotonic-time.Duration(at), time.Duration(wall-h.wall.Load())), true
}

// Staleness is how old the state may be that a local read sees: how long ago this node heard of a leader or, as leader, of its quorum. It is
// false if it never did.
func (n *Node) Staleness() (time.Duration, bool) { return n.heard.ago(time.Now()) }

func (c *raftCore) noteHeard() {
	heard, leads := c.engine.QuorumAck()
	if !leads {
		heard = c.engine.LeaderHeard()
	}
	if !heard.IsZero() {
		c.heard.note(heard)
	}
}
