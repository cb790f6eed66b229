package waterfall

import (
	"cmp"
	"container/heap"
	"maps"
	"math"
	"slices"
	"time"
)

// clock is what is known of one node's clock.
type clock struct {
	node string
	// moved is what was added to its times, give or take uncertain.
	moved, uncertain time.Duration
	// contradictory: no difference fits all of its messages.
	contradictory bool
}

// afterwards is how long a span may go on once its answer is sent: who asked can have ended its own before. No clock is moved for that.
const afterwards = time.Millisecond

// bounds are what messages say of the difference that must be added to the times of one node to read them on another's clock.
type bounds struct{ low, high time.Duration }

// unbounded is beyond all differences and their sums, and can be turned.
var unbounded = bounds{-math.MaxInt64, math.MaxInt64}

func (b bounds) both(o bounds) bounds { return bounds{max(b.low, o.low), min(b.high, o.high)} }

func (b bounds) turned() bounds { return bounds{-b.high, -b.low} }

// closer reports whether less is between the bounds. It compares halves, since unbounded is as far apart as twice the longest time.
func (b bounds) closer(o bounds) bool { return b.high/2-b.low/2 < o.high/2-o.low/2 }

// from are the bounds by the clock to which the other one was moved. They do not grow beyond what is drawn, however many clocks are between.
func (b bounds) from(base time.Duration) bounds {
	moved := unbounded
	if b.low != unbounded.low {
		moved.low = bounded(b.low + base)
	}
	if b.high != unbounded.high {
		moved.high = bounded(b.high + base)
	}
	return moved
}

// choose returns the difference to apply: none if the clocks agree within the bounds, else the middle, as if a message took as long as its
// answer; with one bound only, that one.
func (b bounds) choose() (moved, uncertain time.Duration, contradictory bool) {
	switch {
	case b.low <= 0 && b.high >= -afterwards:
		return 0, 0, false
	case b.low > b.high:
		return (b.low + b.high) / 2, (b.low - b.high) / 2, b.low > b.high+afterwards
	case b.high == unbounded.high:
		return b.low, 0, false
	case b.low == unbounded.low:
		return b.high, 0, false
	}
	return (b.low + b.high) / 2, (b.high - b.low) / 2, false
}

// bound is what a child on another node says of that node's clock. It cannot begin before its parent, which sent the request. It cannot end
// after the parent either, which had its answer; but for a parent that failed, and perhaps waited no longer, and for a message without an
// answer.
func bound(parent, child *span) bounds {
	b := bounds{parent.start - child.start, unbounded.high}
	answered := !parent.failed && !child.oneWay() && !parent.oneWay()
	if answered {
		b.high = parent.end - child.end
	}
	return b
}

// relation is what the messages between two nodes say of the clock of one, on that of the other.
type relation struct {
	of, on string
	bounds
}

// frontier are the relations of nodes that may be aligned next, as a heap: first what has the closest bounds.
type frontier []relation

func (f frontier) Len() int { return len(f) }
func (f frontier) Less(i, j int) bool {
	a, b := f[i], f[j]
	if a.closer(b.bounds) || b.closer(a.bounds) {
		return a.closer(b.bounds)
	}
	return cmp.Or(cmp.Compare(a.of, b.of), cmp.Compare(a.on, b.on)) < 0
}
func (f frontier) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *frontier) Push(r any)   { *f = append(*f, r.(relation)) }
func (f *frontier) Pop() any {
	last := (*f)[len(*f)-1]
	*f = (*f)[:len(*f)-1]
	return last
}

// alignClocks moves the times of nodes whose clock contradicts what they received from others, starting at the node of the first root. Names
// of nodes come from strangers and may be as many as spans, so each relation is looked at only once.
func (t *Trace) alignClocks() {
	neighbours := t.relations()
	if len(neighbours) == 0 {
		return
	}
	// Each node is moved to a neighbour that is aligned already, of several to that with the closest bounds.
	aligned := map[string]time.Duration{}
	for _, reference := range t.references(slices.Sorted(maps.Keys(neighbours))) {
		if _, done := aligned[reference]; done {
			continue
		}
		aligned[reference] = 0
		next := frontier(neighbours[reference])
		heap.Init(&next)
		for len(next) > 0 {
			r := heap.Pop(&next).(relation)
			if _, done := aligned[r.of]; done {
				continue
			}
			moved, uncertain, contradictory := r.from(aligned[r.on]).choose()
			aligned[r.of] = moved
			if moved != 0 || contradictory {
				t.clocks = append(t.clocks, clock{r.of, moved, uncertain, contradictory})
			}
			for _, n := range neighbours[r.of] {
				heap.Push(&next, n)
			}
		}
	}
	for _, s := range t.all {
		s.start, s.end = bounded(s.start+aligned[s.node]), bounded(s.end+aligned[s.node])
	}
	slices.SortFunc(t.clocks, func(a, b clock) int { return cmp.Compare(a.node, b.node) })
}

// relations of other nodes on the clock of each node that sent to one, or received from it.
func (t *Trace) relations() map[string][]relation {
	type pair struct{ of, on string }
	known := map[pair]bounds{}
	note := func(p pair, b bounds) {
		if old, ok := known[p]; ok {
			b = b.both(old)
		}
		known[p] = b
	}
	for _, parent := range t.all {
		for _, child := range parent.children {
			if child.node != parent.node {
				b := bound(parent, child)
				note(pair{child.node, parent.node}, b)
				note(pair{parent.node, child.node}, b.turned())
			}
		}
	}
	neighbours := map[string][]relation{}
	for p, b := range known {
		neighbours[p.on] = append(neighbours[p.on], relation{p.of, p.on, b})
	}
	return neighbours
}

// references are the nodes in the order in which their own clock is taken as right: first that of the first root, which asked.
func (t *Trace) references(nodes []string) []string {
	order := make([]string, 0, len(nodes)+1)
	for _, r := range t.roots {
		if !r.orphan {
			order = append(order, r.node)
			break
		}
	}
	return append(order, nodes...)
}
