package waterfall

import (
	"cmp"
	"math"
	"slices"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// oneWay reports whether nobody waits for the end of the span.
func (s *span) oneWay() bool {
	return s.kind == tracepb.Span_SPAN_KIND_PRODUCER || s.kind == tracepb.Span_SPAN_KIND_CONSUMER
}

// markCritical marks what the end of the root waited for: from its end backwards, each time the child that ended last before, and the
// time between children is the span's own. A child that outlives its parent held nobody up: the slowest follower of a write, say.
func markCritical(root *span) {
	waiting := []*span{root}
	for len(waiting) > 0 {
		s := waiting[len(waiting)-1]
		waiting = waiting[:len(waiting)-1]
		s.critical = true
		at := s.end
		lastFirst := slices.Clone(s.children)
		slices.SortFunc(lastFirst, func(a, b *span) int {
			return cmp.Or(-cmp.Compare(a.end, b.end), cmp.Compare(a.start, b.start), cmp.Compare(a.id, b.id))
		})
		for _, c := range lastFirst {
			if c.end > at || c.start < s.start {
				continue
			}
			s.own += at - c.end
			at = c.start
			waiting = append(waiting, c)
		}
		s.own += max(0, at-s.start)
	}
}

// share is what one kind of work on one node contributes to the critical path.
type share struct {
	name, node string
	own        time.Duration
}

// shares of the critical path, the largest first.
func (t *Trace) shares() []share {
	type key struct{ name, node string }
	sum := map[key]time.Duration{}
	for _, s := range t.all {
		if s.critical && s.own > 0 {
			k := key{s.name, s.node}
			sum[k] += min(s.own, math.MaxInt64-sum[k]) // roots may be many, and each absurdly long
		}
	}
	var all []share
	for k, own := range sum {
		all = append(all, share{k.name, k.node, own})
	}
	slices.SortFunc(all, func(a, b share) int {
		return cmp.Or(-cmp.Compare(a.own, b.own), cmp.Compare(a.node, b.node), cmp.Compare(a.name, b.name))
	})
	return all
}
