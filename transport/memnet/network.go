// Package memnet is a transport in memory, for tests of running nodes. It does what NATS may do to messages and a test cannot make it do:
// they are lost, late, repeated, out of order, or cut off in one direction only. What is sent is encoded, and checked by the same gate
// as over NATS.
package memnet

import (
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"quorate/node/raft"
	"quorate/transport"
)

// Faults say how badly messages are treated. Each request and each answer is a message. The zero value is a perfect network.
type Faults struct {
	// Loss and Duplicate are probabilities. A request that comes twice is handled twice; of two answers to one call the later is dropped, as
	// NATS does.
	Loss, Duplicate float64
	// Delay is the most that a message usually takes; they overtake each other. With probability Late one takes up to LateDelay.
	Delay, LateDelay time.Duration
	Late             float64
}

// Network connects the transports that join it. It is safe from several goroutines.
type Network struct {
	mu     sync.Mutex // guards all below
	rng    *rand.Rand
	faults Faults
	cut    map[link]bool
	// joined are the transports that listen, by name.
	joined map[raft.NodeID]*Transport
}

type link struct{ from, to raft.NodeID }

// New returns a network without faults. Chance is drawn from the seed; the goroutines' order is not.
func New(seed uint64) *Network {
	return &Network{rng: rand.New(rand.NewPCG(seed, 0)), cut: map[link]bool{}, joined: map[raft.NodeID]*Transport{}}
}

// SetFaults replaces the faults, for what is sent from now on.
func (n *Network) SetFaults(f Faults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = f
}

// Cut drops what is sent in one direction, until Heal.
func (n *Network) Cut(from, to raft.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[link{from, to}] = true
}

// Heal mends all that was cut.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
}

// Join returns the transport of a node, which is reached once it listens.
func (n *Network) Join(self raft.Peer, boot uint64, logger *slog.Logger) *Transport {
	return &Transport{network: n, self: self, gate: transport.NewGate(self, boot, logger), calls: map[uint64]*call{}}
}

// carry brings a message from one node to another: later, perhaps never, perhaps twice.
func (n *Network) carry(from, to raft.NodeID, deliver func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := &n.faults
	if n.cut[link{from, to}] || n.rng.Float64() < f.Loss {
		return
	}
	copies := 1
	if n.rng.Float64() < f.Duplicate {
		copies = 2
	}
	for range copies {
		most := f.Delay
		if n.rng.Float64() < f.Late {
			most = f.LateDelay
		}
		time.AfterFunc(time.Duration(n.rng.Int64N(int64(most)+1)), deliver)
	}
}

// find returns who listens under that name, and with that incarnation unless it is zero; or nil.
func (n *Network) find(to raft.Peer) *Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t := n.joined[to.ID]; t != nil && (to.Incarnation == 0 || to == t.self) {
		return t
	}
	return nil
}
