package waterfall

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"quorate/telemetry"
)

// client is the name of whoever recorded a span without being a node.
const client = "client"

// ErrEmpty says that there is no span to draw.
var ErrEmpty = errors.New("the trace has no spans")

// Trace is the spans of one trace as a tree. It does not change once it is built.
type Trace struct {
	// roots in order of their start: the spans without a parent, then the orphans.
	roots []*span
	// all spans, each after its parent, children in order of their start.
	all []*span
	// clocks that were moved, or whose bounds contradict each other, in order of their nodes' names.
	clocks []clock
	// from is the earliest start, to the latest end.
	from, to time.Duration
	// reversed counts the spans that ended before they began.
	reversed int
}

// span is one span on the aligned time line.
type span struct {
	id, parentID string
	name         string
	node         string
	goroutine    string
	kind         tracepb.Span_SpanKind
	failed       bool
	// start and end count from the earliest start of the trace; end is not before start.
	start, end time.Duration
	depth      int
	// orphan: it names a parent that is not among the spans.
	orphan   bool
	critical bool
	// own is for how long the answer waited for this span itself and for none of its children.
	own      time.Duration
	children []*span
}

// Build makes the tree of the spans of one trace, aligns the clocks of its nodes and finds the critical path. A span that is given twice
// counts once. Error: ErrEmpty, or spans of several traces.
func Build(spans []*tracepb.ResourceSpans) (*Trace, error) {
	t := &Trace{}
	if err := t.take(spans); err != nil {
		return nil, err
	}
	if len(t.all) == 0 {
		return nil, ErrEmpty
	}
	t.plant()
	t.alignClocks()
	t.order()
	for _, root := range t.roots {
		if !root.orphan {
			markCritical(root)
		}
	}
	return t, nil
}

// take reads the spans into t.all, in no order.
func (t *Trace) take(resources []*tracepb.ResourceSpans) error {
	var traceID string
	var origin uint64
	known := map[string]bool{}
	for _, r := range resources {
		node := attribute(r.GetResource().GetAttributes(), string(telemetry.NodeKey))
		if node == "" {
			node = client
		}
		for _, scope := range r.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				if traceID == "" {
					traceID, origin = string(s.GetTraceId()), s.GetStartTimeUnixNano()
				}
				if string(s.GetTraceId()) != traceID {
					return fmt.Errorf("spans of several traces: %x and %x", traceID, s.GetTraceId())
				}
				if known[string(s.GetSpanId())] {
					continue
				}
				known[string(s.GetSpanId())] = true
				n := &span{
					id: string(s.GetSpanId()), parentID: string(s.GetParentSpanId()), name: s.GetName(), node: node,
					goroutine: attribute(s.GetAttributes(), string(telemetry.GoroutineKey)), kind: s.GetKind(),
					failed: s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR,
					start:  since(origin, s.GetStartTimeUnixNano()), end: since(origin, s.GetEndTimeUnixNano()),
				}
				if n.end < n.start {
					n.end = n.start
					t.reversed++
				}
				t.all = append(t.all, n)
			}
		}
	}
	return nil
}

// longest is how far a span may be from the first one, by its node's clock; one that is farther has an absurd clock, and is drawn there. A
// clock that was never set, and says 1970, is nearer. It is less than a quarter of what a time.Duration holds: that of two spans differ by
// twice as much at most, clocks are moved by no more than that, and two such moves are added.
const longest = 70 * 365 * 24 * time.Hour

// bounded is the time, or the farthest that spans on clocks which may differ can be from each other.
func bounded(d time.Duration) time.Duration { return min(max(d, -2*longest), 2*longest) }

func since(origin, at uint64) time.Duration {
	return min(max(time.Duration(at-origin), -longest), longest) // the difference wraps around as it should
}

func attribute(attributes []*commonpb.KeyValue, key string) string {
	for _, a := range attributes {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// plant gives each span its parent. What names itself as its ancestor is an orphan. Parents come from strangers, and a chain of them may be
// as long as there are spans, so each span is passed only once.
func (t *Trace) plant() {
	byID := map[string]*span{}
	for _, s := range t.all {
		byID[s.id] = s
	}
	parent := func(s *span) *span {
		if s.parentID == "" {
			return nil
		}
		return byID[s.parentID]
	}
	passed := map[*span]*span{} // from which span the way up came by first
	for _, s := range t.all {
		p := s
		for p != nil && passed[p] == nil {
			passed[p] = s
			p = parent(p)
		}
		if p != nil && passed[p] == s {
			p.orphan = true // the way up came back: the ring is cut here
		}
	}
	for _, s := range t.all {
		p := parent(s)
		if p == nil || s.orphan {
			s.orphan = s.parentID != ""
			t.roots = append(t.roots, s)
			continue
		}
		p.children = append(p.children, s)
	}
}

// order sorts everything by the aligned time, which begins at the earliest span.
func (t *Trace) order() {
	t.from = slices.MinFunc(t.all, func(a, b *span) int { return cmp.Compare(a.start, b.start) }).start
	for _, s := range t.all {
		s.start, s.end = s.start-t.from, s.end-t.from
		t.to = max(t.to, s.end)
	}
	t.from = 0
	byStart := func(a, b *span) int {
		return cmp.Or(cmp.Compare(a.start, b.start), -cmp.Compare(a.end, b.end), cmp.Compare(a.id, b.id))
	}
	slices.SortFunc(t.roots, func(a, b *span) int {
		if a.orphan != b.orphan {
			if b.orphan {
				return -1
			}
			return 1
		}
		return byStart(a, b)
	})
	t.all = t.all[:0]
	stack := slices.Clone(t.roots)
	slices.Reverse(stack)
	for len(stack) > 0 {
		s := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		t.all = append(t.all, s)
		slices.SortFunc(s.children, byStart)
		for _, c := range slices.Backward(s.children) {
			c.depth = s.depth + 1
			stack = append(stack, c)
		}
	}
}
