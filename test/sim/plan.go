package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"quorate/node/raft"
)

// plan is what kind of run a seed makes: the cluster's shape and which faults it suffers, how much. Runs differ in
// character on purpose: a bug that needs calm in one respect and storm in another is found by some of them.
type plan struct {
	nodes      int
	membership *raft.Membership
	engine     raft.Config
	replicator raft.ReplicatorConfig

	faultTime time.Duration
	faultGap  time.Duration
	// weights of the faults, by kind.
	weights [faultKinds]int

	loss, duplicate, slow, late float64
	delay, slowDelay            time.Duration

	syncTime, slowSync time.Duration
	slowSyncs          float64

	clientGap time.Duration
	reads     float64
	// callGap is between two calls of a caller; sessionIdle is when its session expires.
	callGap, sessionIdle time.Duration
	// changes: clients change the membership, too.
	changes bool
	// snapshots: leaders build snapshots, and all purge their logs. transfers: leadership is handed over.
	snapshots, transfers bool
	// builds and purges are how often, in passes of a core.
	builds, purges float64
	lease          leasePlan
	versions       versionPlan
}

func (p plan) String() string {
	return fmt.Sprintf("%v, election timeout %v, %d messages of %d bytes in flight, loss %.2f, duplicates %.2f, late %.2f, "+
		"delay %v (%.2f: %v), sync %v (%.2f: %v), faults %v every %v, changes %v, snapshots %v, transfers %v, %v, versions %+v",
		p.membership, p.engine.ElectionTimeout, p.replicator.MaxInFlight, p.replicator.MaxMessageBytes, p.loss, p.duplicate, p.late,
		p.delay, p.slow, p.slowDelay, p.syncTime, p.slowSyncs, p.slowSync, p.weights, p.faultGap, p.changes, p.snapshots, p.transfers, p.lease, p.versions)
}

func pick[T any](rng *rand.Rand, choices ...T) T { return choices[rng.IntN(len(choices))] }

func newPlan(rng *rand.Rand) plan {
	timeout := pick(rng, 150*time.Millisecond, 300*time.Millisecond, 500*time.Millisecond)
	p := plan{
		engine: raft.Config{HeartbeatInterval: timeout / 10, ElectionTimeout: timeout},
		replicator: raft.ReplicatorConfig{
			HeartbeatInterval: timeout / 10,
			MaxInFlight:       pick(rng, 1, 2, 8, 64),
			MaxInFlightBytes:  pick(rng, 1, 200, 10_000),
			MaxMessageBytes:   pick(rng, 1, 64, 10_000),
		},
		faultTime: 20 * timeout,
		faultGap:  timeout / time.Duration(pick(rng, 1, 2, 4)),
		loss:      pick(rng, 0, 0.01, 0.1),
		duplicate: pick(rng, 0, 0.05),
		slow:      pick(rng, 0, 0.02, 0.2, 0.5),
		late:      pick(rng, 0, 0, 0.01, 0.05),
		delay:     pick(rng, 200*time.Microsecond, 2*time.Millisecond, timeout/20),
		slowDelay: pick(rng, timeout/10, timeout),
		syncTime:  pick(rng, 100*time.Microsecond, 3*time.Millisecond, timeout/15),
		slowSync:  pick(rng, timeout/8, timeout/2),
		slowSyncs: pick(rng, 0, 0.05, 0.3),
		clientGap: pick(rng, timeout/100, timeout/25, timeout/5),
		reads:     pick(rng, 0.1, 0.5),
		callGap:   pick(rng, timeout/10, timeout/3, timeout),
	}
	for i := range p.weights[:sleepNode] {
		p.weights[i] = pick(rng, 0, 1, 1, 3)
	}
	p.weights[crashNode]++
	p.sessionIdle = pick(rng, timeout/2, 2*timeout, 100*timeout)
	p.membership, p.nodes = newMembership(rng)
	p.changes = rng.IntN(3) == 0
	p.snapshots = rng.IntN(2) == 0
	p.builds, p.purges = pick(rng, 0.002, 0.01, 0.1), pick(rng, 0.05, 0.5)
	p.transfers = rng.IntN(3) == 0
	if !p.changes || rng.IntN(2) == 0 { // who has lost its disk would stay out for ever
		p.weights[loseDisk] = 0
	}
	return p
}

// newMembership draws the shape of the cluster: mostly three or five voters, sometimes learners or a joint configuration.
func newMembership(rng *rand.Rand) (*raft.Membership, int) {
	shape := pick(rng, "vvv", "vvv", "vvvvv", "vvvvv", "vvvll", "bbvoo", "bbovv", "vvooo", "bbbvl", "v", "vv")
	m := &raft.Membership{}
	for i, c := range shape {
		m.Members = append(m.Members, raft.Member{
			Peer: peer(i), Voter: c == 'v' || c == 'b', Outgoing: c == 'o' || c == 'b', Retain: c == 'o',
		})
	}
	return m, len(shape)
}

func peer(i int) raft.Peer {
	return raft.Peer{ID: raft.NodeID(fmt.Sprintf("n%d", i+1)), Incarnation: raft.Incarnation(i + 1)}
}
