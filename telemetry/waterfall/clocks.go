package waterfall

import (
	"cmp"
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

// alignClocks moves the times of nodes whose clock contradicts what they received from others, starting at the node of the first root.
func (t *Trace) alignClocks() {
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
	if len(known) == 0 {
		return
	}
	var nodes []string
	for _, s := range t.all {
		nodes = append(nodes, s.node)
	}
	slices.Sort(nodes)
	nodes = slices.Compact(nodes)

	// Each node is moved to a neighbour that is aligned already, of several to that with the closest bounds.
	aligned := map[string]time.Duration{}
	for _, reference := range t.references(nodes) {
		if _, ok := aligned[reference]; !ok {
			aligned[reference] = 0
		}
		for {
			var best pair
			found := false
			for _, of := range nodes {
				for _, on := range nodes {
					_, done := aligned[of]
					_, usable := aligned[on]
					b, related := known[pair{of, on}]
					if done || !usable || !related {
						continue
					}
					if !found || b.closer(known[best]) {
						best, found = pair{of, on}, true
					}
				}
			}
			if !found {
				break
			}
			moved, uncertain, contradictory := known[best].from(aligned[best.on]).choose()
			aligned[best.of] = moved
			if moved != 0 || contradictory {
				t.clocks = append(t.clocks, clock{best.of, moved, uncertain, contradictory})
			}
		}
	}
	for _, s := range t.all {
		s.start, s.end = bounded(s.start+aligned[s.node]), bounded(s.end+aligned[s.node])
	}
	slices.SortFunc(t.clocks, func(a, b clock) int { return cmp.Compare(a.node, b.node) })
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
