package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// fault begins something that concerns that node, and returns how it ends.
type fault struct {
	name  string
	begin func(c *cluster, m *member) (heal func())
	scope scope
}

// scope of a fault says what else may go on meanwhile.
type scope int

const (
	one      scope = iota // it is over with one node, and another may have a fault too
	ordered               // an operator's command, or one that mends it: it must work while one other node has a fault
	everyone              // it leaves no majority: nothing else goes on
)

var faults = []fault{
	{name: "kill", begin: func(c *cluster, m *member) func() {
		c.kill(m)
		return func() { c.start(m) }
	}},
	{name: "pause", begin: func(c *cluster, m *member) func() {
		m.pause(c.t)
		return func() { m.resume(c.t) }
	}},
	{name: "hold both directions", begin: holding(toServer, toClient)},
	{name: "hold what it sends", begin: holding(toServer)},
	{name: "hold what it gets", begin: holding(toClient)},
	{name: "cut connections", begin: func(_ *cluster, m *member) func() {
		m.cable.cut()
		return m.cable.cut
	}},
	{name: "hold and cut", begin: func(_ *cluster, m *member) func() {
		m.cable.hold(toServer)
		m.cable.hold(toClient)
		return func() { m.cable.cut(); m.cable.release() } // what was held is lost
	}},
	{name: "hand leadership on", begin: func(c *cluster, m *member) func() {
		c.command("leader", "transfer", m.id)
		return func() {}
	}, scope: ordered},
	{name: "kill all", begin: func(c *cluster, _ *member) func() {
		for _, m := range c.nodes {
			c.kill(m)
		}
		return func() {
			for _, m := range c.nodes {
				c.start(m)
			}
		}
	}, scope: everyone},
	{name: "restart NATS", begin: func(c *cluster, _ *member) func() {
		if err := c.server.Close(); err != nil {
			c.t.Errorf("close NATS: %v", err)
		}
		return c.startNATS
	}, scope: everyone},
	{name: "replace member", begin: func(c *cluster, m *member) func() {
		c.born++
		id := fmt.Sprintf("n%d", c.born)
		c.add(id, "--join")
		c.command("member", "replace", m.id, id)
		return func() { c.leave(m) }
	}, scope: ordered},
	{name: "lose disk", begin: func(c *cluster, m *member) func() {
		c.kill(m)
		c.loseDisk(m)
		return func() { c.command("member", "add", m.id) }
	}, scope: ordered},
	{name: "leases", begin: func(c *cluster, _ *member) func() {
		c.command("setting", "set", "--lease", "500ms")
		return func() {}
	}, scope: ordered},
	{name: "instant failover", begin: func(c *cluster, _ *member) func() {
		c.command("setting", "set", "--instant-failover")
		return func() {}
	}, scope: ordered},
	{name: "snapshot", begin: func(c *cluster, _ *member) func() {
		c.command("snapshot", "take")
		return func() {}
	}, scope: ordered},
}

func holding(directions ...direction) func(*cluster, *member) func() {
	return func(_ *cluster, m *member) func() {
		for _, d := range directions {
			m.cable.hold(d)
		}
		return m.cable.release
	}
}

// plan deals faults so that each comes once before any comes again, in the random order of the source.
type plan struct {
	source *rand.Rand
	left   []fault
}

// next returns one fault, or two that may go on at a time: that of one node first.
func (p *plan) next() []fault {
	first := p.deal()
	if first.scope == everyone || p.source.IntN(2) == 0 {
		return []fault{first}
	}
	second := p.deal()
	switch {
	case second.scope == everyone || first.scope == ordered && second.scope == ordered:
		p.left = slices.Insert(p.left, 0, second)
		return []fault{first}
	case first.scope == ordered:
		return []fault{second, first}
	}
	return []fault{first, second}
}

func (p *plan) deal() fault {
	if len(p.left) == 0 {
		p.left = slices.Clone(faults)
		p.source.Shuffle(len(p.left), func(i, j int) { p.left[i], p.left[j] = p.left[j], p.left[i] })
	}
	f := p.left[0]
	p.left = p.left[1:]
	return f
}

// victims returns the nodes in a random order: the leader first, half of the time.
func (p *plan) victims(c *cluster) []*member {
	nodes := slices.Clone(c.nodes)
	p.source.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	if p.source.IntN(2) == 0 {
		if at := slices.Index(nodes, c.leader()); at >= 0 {
			nodes[0], nodes[at] = nodes[at], nodes[0]
		}
	}
	return nodes
}

// tormentClient cuts or holds the connection of a client.
func (p *plan) tormentClient(tr *traffic) (heal func()) {
	cable := tr.cables[p.source.IntN(clients)]
	switch p.source.IntN(3) {
	case 0:
		cable.hold(toServer)
	case 1:
		cable.hold(toClient)
	}
	if p.source.IntN(2) == 0 {
		cable.cut()
	}
	return cable.release
}
