package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// fault begins something bad that concerns that node, and returns how it ends.
type fault struct {
	name  string
	begin func(c *cluster, m *member) (heal func())
	// whole: it concerns all nodes, or changes who they are, so that nothing else may be wrong meanwhile.
	whole bool
}

var faults = []fault{
	{name: "kill", begin: func(c *cluster, m *member) func() {
		m.process.Kill()
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
	{name: "hand leadership on", begin: func(c *cluster, _ *member) func() {
		c.command("leader", "transfer")
		return func() {}
	}, whole: true},
	{name: "kill all", begin: func(c *cluster, _ *member) func() {
		for _, m := range c.nodes {
			m.process.Kill()
		}
		return func() {
			for _, m := range c.nodes {
				c.start(m)
			}
		}
	}, whole: true},
	{name: "restart NATS", begin: func(c *cluster, _ *member) func() {
		if err := c.server.Close(); err != nil {
			c.t.Errorf("close NATS: %v", err)
		}
		return c.startNATS
	}, whole: true},
	{name: "replace member", begin: func(c *cluster, m *member) func() {
		c.born++
		id := fmt.Sprintf("n%d", c.born)
		c.add(id, "--join")
		c.command("member", "replace", m.id, id)
		return func() { c.leave(m) }
	}, whole: true},
	{name: "lose disk", begin: func(c *cluster, m *member) func() {
		m.process.Kill()
		c.loseDisk(m)
		return func() { c.command("member", "add", m.id) }
	}, whole: true},
	{name: "leases", begin: func(c *cluster, _ *member) func() {
		c.command("setting", "set", "--lease", "500ms")
		return func() {}
	}, whole: true},
	{name: "instant failover", begin: func(c *cluster, _ *member) func() {
		c.command("setting", "set", "--instant-failover")
		return func() {}
	}, whole: true},
	{name: "snapshot", begin: func(c *cluster, _ *member) func() {
		c.command("snapshot", "take")
		return func() {}
	}, whole: true},
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

func (p *plan) next() fault {
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
