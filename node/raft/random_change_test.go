package raft

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var randomSeeds = flag.Uint64("raft.seeds", 25, "how many random histories of changes, transfers and snapshots to play")

// TestRandomChangesTransfersAndSnapshots plays histories by chance: messages lost, repeated and reordered, crashes, slow disks, any change of
// the membership, transfers, snapshots and purges. No step breaks an invariant or a commitment; then the faults end, and the cluster
// must agree again.
func TestRandomChangesTransfersAndSnapshots(t *testing.T) {
	for seed := range *randomSeeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHistory(t, seed)
			for range 250 {
				h.step()
			}
			h.heal()
		})
	}
}

type history struct {
	*cluster
	rand *rand.Rand
}

func newHistory(t *testing.T, seed uint64) *history {
	h := &history{rand: rand.New(rand.NewPCG(seed, 11))}
	h.cluster = newCluster(t, voters(3))
	for i := 4; i <= 6; i++ {
		h.nodes = append(h.nodes, &clusterNode{c: h.cluster, self: member(i), baseMembership: MembershipAt{Membership: h.membership}})
	}
	for _, n := range h.nodes {
		n.start()
	}
	return h
}

func (h *history) chance(percent int) bool { return h.rand.IntN(100) < percent }

func (h *history) any() *clusterNode { return h.nodes[h.rand.IntN(len(h.nodes))] }

// some draws a set of nodes.
func (h *history) some(percent int) []Peer {
	var peers []Peer
	for _, n := range h.nodes {
		if h.chance(percent) {
			peers = append(peers, n.self)
		}
	}
	return peers
}

func (h *history) step() {
	for range h.rand.IntN(25) { // messages, in any order
		if len(h.mail) == 0 {
			break
		}
		i := h.rand.IntN(min(len(h.mail), 6))
		l := h.mail[i]
		if !h.chance(3) { // else it will arrive again
			h.mail = slices.Delete(h.mail, i, i+1)
		}
		if !h.chance(3) { // else it is lost
			h.hand(l)
		}
	}
	h.now = h.now.Add(time.Duration(h.rand.IntN(60)) * time.Millisecond)
	h.expire()
	for _, n := range h.nodes {
		n.tick()
	}
	h.trouble()
	for _, n := range h.nodes {
		if n.up {
			h.use(n)
		}
	}
}

func (h *history) trouble() {
	n := h.any()
	switch {
	case h.chance(4):
		h.isolated[n.self.ID] = true
	case h.chance(10):
		clear(h.isolated)
	case h.chance(3) && n.up:
		n.stop()
	case h.chance(25) && !n.up:
		n.start()
	case h.chance(5):
		n.slow = !n.slow
	}
}

// use does what users, operators, builders, fetchers and disks do.
func (h *history) use(n *clusterNode) {
	if len(n.unsynced) > 0 && h.chance(30) {
		n.sync(1 + h.rand.IntN(len(n.unsynced)))
		n.flush()
	}
	switch {
	case n.fetching != nil && h.chance(20):
		n.install(*n.fetching)
	case n.fetching != nil && h.chance(5):
		n.engine.FetchFailed(h.now, *n.fetching, h.chance(50))
		n.fetching = nil
	case h.chance(2):
		n.engine.Elect(h.now)
	case h.chance(10):
		n.purgeLog(n.engine.PurgeFloor())
	case n.engine.Role() != Leader:
	case h.chance(40):
		n.engine.Propose(h.now, []Entry{{Kind: EntryCommand}, {Kind: EntryCommand}})
	case h.chance(15):
		n.makeSnapshot()
	case h.chance(30):
		id, err := n.engine.ChangeMembership(h.now, Change{Voters: h.some(50), Learners: h.some(50), Force: h.chance(20)})
		h.say("%s changes: %v, %v", n.self.ID, id, err)
	case h.chance(10):
		h.say("%s hands over: %v", n.self.ID, n.engine.Transfer(h.now, h.any().self.ID))
	}
	n.flush()
}

// heal ends all faults, and waits until there is one leader whose whole configuration has all of its log.
func (h *history) heal() {
	clear(h.isolated)
	for _, n := range h.nodes {
		if !n.up {
			n.start()
		}
		n.slow = false
		if len(n.unsynced) > 0 {
			n.sync(len(n.unsynced))
			n.flush()
		}
	}
	for end := h.now.Add(30 * time.Second); h.now.Before(end); {
		h.deliver(func(*letter) bool { return true }, 10000)
		h.now = h.now.Add(25 * time.Millisecond)
		h.expire()
		for _, n := range h.nodes {
			n.tick()
			if n.fetching != nil {
				n.install(*n.fetching)
			}
			if n.engine.Role() == Leader && n.engine.Snapshot().Last.Index < n.base.Index {
				n.makeSnapshot()
			}
			n.flush()
		}
		if h.agreed() {
			return
		}
	}
	lines := h.told()
	h.Fatalf("no agreement after 30 s without faults:\n%s\n%s\n...%s", h.members(), h.logs(), lines[max(0, len(lines)-4000):])
}

func (h *history) agreed() bool {
	var leader *clusterNode
	for _, n := range h.nodes {
		if n.engine.Role() == Leader && (leader == nil || n.engine.Vote().Term > leader.engine.Vote().Term) {
			leader = n
		}
	}
	if leader == nil || !leader.engine.Serving() || leader.engine.Transferring() || leader.engine.Membership().Joint() {
		return false
	}
	for _, member := range leader.engine.Membership().Members {
		if e := h.node(member.ID).engine; e.LastLogID() != leader.engine.LastLogID() || e.Commit() != leader.engine.Commit() ||
			e.Commit() != e.LastLogID().Index || e.Removed() || e.MembershipAt().ID != leader.engine.MembershipAt().ID {
			return false
		}
	}
	return true
}
