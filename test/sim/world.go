package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"quorate/node/raft"
)

// Result is what a run came to.
type Result struct {
	Seed uint64
	// Err is the first broken promise, or nil.
	Err error
	// Trace tells the last steps before Err, one a line.
	Trace string
	// Hash is over all steps of the run: equal seeds give equal hashes.
	Hash uint64
	// What happened, to judge whether the run was worth anything.
	Steps, Elections, Committed, Acked, Reads, Crashes, Calls, Retried, Wipes, LeaseReads int
	Coverage                                                                              Coverage
}

// Run simulates one cluster. The same seed gives the same result.
func Run(seed uint64) Result {
	w := newWorld(seed)
	w.run()
	return w.result()
}

// world holds the simulated cluster and its clock.
type world struct {
	seed uint64
	plan plan
	rng  *rand.Rand

	now    time.Duration
	events events
	made   uint64

	processes []*process
	net       network
	clients   clients
	oracle    oracle
	effects   effects
	history   history
	store     store
	trace     trace
	err       error
	healed    bool
	steps     int
	crashes   int
	// wiped are the disks that were lost, by whose they were.
	wiped map[raft.Peer]*disk
	wipes int
	// calm is the time after the cluster has shown that it lives again.
	calm     calm
	coverage Coverage
}

// epoch is when virtual time begins. Any fixed time does.
var epoch = time.Unix(1_000_000_000, 0)

func newWorld(seed uint64) *world {
	w := &world{seed: seed, wiped: map[raft.Peer]*disk{}, rng: rand.New(rand.NewPCG(seed, 1))}
	w.plan = newPlan(w.rng)
	w.plan.addLeases(rand.New(rand.NewPCG(seed, 3))) // of its own, so that worlds without are what they are
	w.plan.addVersions(rand.New(rand.NewPCG(seed, 4)))
	w.oracle = newOracle(w)
	w.effects = newEffects(w)
	w.net = newNetwork(w)
	w.clients = clients{w: w}
	for i := range w.plan.nodes {
		w.processes = append(w.processes, newProcess(w, i))
	}
	return w
}

func (w *world) run() {
	w.trace.add(w.now, "plan", -1, -1, 0, 0, w.plan)
	for _, p := range w.processes {
		p.start()
	}
	w.clients.begin()
	w.beginCalls()
	w.chooseLeases()
	w.scheduleFault()
	w.after(w.plan.faultTime, w.heal)
	for w.err == nil && len(w.events) > 0 && !w.clients.done {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	if err := w.history.check(); err != nil {
		w.fail("%w", err)
	}
}

// after calls do when d has passed.
func (w *world) after(d time.Duration, do func()) {
	w.made++
	heap.Push(&w.events, event{at: w.now + max(d, 0), order: w.made, do: do})
}

// fail ends the run with a broken promise.
func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

func (w *world) result() Result {
	r := Result{
		Seed: w.seed, Err: w.err, Hash: w.trace.hash, Steps: w.steps, Elections: len(w.oracle.leaders),
		Committed: len(w.oracle.committed), Acked: w.clients.acked, Reads: w.clients.answered, Crashes: w.crashes,
		Calls: len(w.history.ops), Retried: w.clients.retried, Wipes: w.wipes, LeaseReads: w.clients.leased, Coverage: w.coverage,
	}
	if w.err != nil {
		r.Trace = w.trace.String()
	}
	return r
}

// chance is true with probability p.
func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// between draws a duration from [lo, hi).
func (w *world) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.rng.Int64N(int64(max(1, hi-lo))))
}

// leader returns a process that believes that it leads, at random if there are several, or nil.
func (w *world) leader() *process {
	var leaders []*process
	for _, p := range w.processes {
		if p.up && p.engine.Role() == raft.Leader {
			leaders = append(leaders, p)
		}
	}
	if len(leaders) == 0 {
		return nil
	}
	return leaders[w.rng.IntN(len(leaders))]
}

type event struct {
	at    time.Duration
	order uint64
	do    func()
}

// events is a heap by time, then by order of making.
type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	if e[i].at != e[j].at {
		return e[i].at < e[j].at
	}
	return e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	old[len(old)-1] = event{}
	*e = old[:len(old)-1]
	return last
}
