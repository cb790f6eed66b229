package node

import (
	"time"

	"quorate/node/raft"
	"quorate/transport"
)

// askPriorities is how often a leader asks the voters how much they should lead, in election timeouts.
const askPriorities = 4

// yield hands leadership to a voter that should lead more than this node, once it has caught up. Priorities are the nodes' own; the leader
// asks for them now and then.
func (c *raftCore) yield(now time.Time) {
	if !c.engine.Serving() {
		c.yieldAt = now.Add(askPriorities * c.cfg.ElectionTimeout) // let a new leadership settle
		return
	}
	if now.Before(c.yieldAt) || c.engine.Transferring() {
		return
	}
	c.yieldAt = now.Add(askPriorities * c.cfg.ElectionTimeout)
	term := c.engine.Vote().Term
	for _, t := range c.engine.Targets() {
		if !t.Reachable || !c.engine.Membership().IsVoter(t.Peer) {
			continue
		}
		c.transport.Call(raft.Peer{ID: t.Peer.ID}, &transport.HelloRequest{Cluster: c.cfg.Cluster}, c.cfg.ElectionTimeout, func(a transport.Answer) {
			hello, ok := a.Response.(*transport.HelloResponse)
			if a.Err != nil || !ok || hello.From != t.Peer || int(hello.Priority) <= c.cfg.Priority {
				return
			}
			select {
			case c.in.control <- timed[controlCall]{controlCall{run: func(c *raftCore) { c.yieldTo(term, t.Peer, int(hello.Priority)) }}, c.metrics.now()}:
			default: // next time
			}
		})
	}
}

// mostLag is how many entries a voter may be behind to be handed leadership: proposals wait while it catches up.
const mostLag = 1000

func (c *raftCore) yieldTo(term uint64, to raft.Peer, priority int) {
	if !c.engine.Serving() || c.engine.Vote().Term != term {
		return
	}
	for _, t := range c.engine.Targets() {
		if t.Peer == to && t.Matched.Index+mostLag >= c.engine.LastLogID().Index {
			if err := c.engine.Transfer(time.Now(), to.ID); err == nil {
				c.logger.Info("handing over to a voter that should lead more", "to", to.ID, "priority", priority, "own", c.cfg.Priority)
			}
		}
	}
}
