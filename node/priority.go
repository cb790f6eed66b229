package node

import (
	"time"

	"quorate/node/raft"
	"quorate/transport"
)

// askPriorities is how often a leader asks the voters how much they should lead, in election timeouts.
const askPriorities = 4

// yield hands leadership to a voter that should lead more than this node, once it has caught up. Priorities are the nodes' own; the leader
// asks for them now and then. What a node's NATS server can carry comes first: a leader that cannot send the largest entry holds up all that
// follow it.
func (c *raftCore) yield(now time.Time) {
	if !c.engine.Serving() {
		c.yieldAt = now.Add(askPriorities * c.cfg.ElectionTimeout) // let a new leadership settle
		return
	}
	if now.Before(c.yieldAt) || c.engine.Transferring() {
		return
	}
	c.yieldAt = now.Add(askPriorities * c.cfg.ElectionTimeout)
	term, carries, own := c.engine.Vote().Term, c.carries(c.transport.MaxRequestBytes()), c.cfg.Priority
	for _, t := range c.engine.Targets() {
		if !t.Reachable || !c.engine.Membership().IsVoter(t.Peer) {
			continue
		}
		c.transport.Call(raft.Peer{ID: t.Peer.ID}, &transport.HelloRequest{Cluster: c.cfg.Cluster}, c.cfg.ElectionTimeout, func(a transport.Answer) {
			hello, ok := a.Response.(*transport.HelloResponse)
			if a.Err != nil || !ok || hello.From != t.Peer {
				return
			}
			switch theirs := c.carries(int(hello.MaxPayloadBytes)); {
			case carries && !theirs, carries == theirs && int(hello.Priority) <= own:
				return
			}
			select {
			case c.in.control <- timed[controlCall]{controlCall{run: func(c *raftCore) { c.yieldTo(term, t.Peer, int(hello.Priority)) }}, c.metrics.now()}:
			default: // next time
			}
		})
	}
}

// carries reports whether a NATS server that takes messages of so many bytes takes the cluster's largest entry.
func (c *raftCore) carries(messageBytes int) bool {
	return uint64(max(0, messageBytes)) >= c.genesis.MaxEntryBytes+EntryEnvelope
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
				c.logger.Info("handing over to a voter that should lead more", "to", to.ID, "priority", priority, "own", c.cfg.Priority,
					"max_payload", c.transport.MaxRequestBytes())
			}
		}
	}
}
