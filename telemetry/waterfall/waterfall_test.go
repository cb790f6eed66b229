package waterfall

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rivo/uniseg"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func text(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

// given is a span of a test: times in microseconds, on its node's clock.
type given struct {
	id, parent byte
	name       string
	node       string
	goroutine  string
	start, end int
	failed     bool
	kind       tracepb.Span_SpanKind
}

const epoch = 1_700_000_000_000_000_000

// resources makes OTLP of the spans; skew, in microseconds, is what a node's clock is fast.
func resources(spans []given, skew map[string]int) []*tracepb.ResourceSpans {
	var all []*tracepb.ResourceSpans
	for _, g := range spans {
		s := &tracepb.Span{
			TraceId: bytes.Repeat([]byte{7}, 16), SpanId: []byte{g.id, 0, 0, 0, 0, 0, 0, 1}, Name: g.name, Kind: g.kind,
			StartTimeUnixNano: uint64(epoch + 1000*(g.start+skew[g.node])), EndTimeUnixNano: uint64(epoch + 1000*(g.end+skew[g.node])),
			Attributes: []*commonpb.KeyValue{text("quorate.goroutine", g.goroutine)},
		}
		if g.parent != 0 {
			s.ParentSpanId = []byte{g.parent, 0, 0, 0, 0, 0, 0, 1}
		}
		if g.failed {
			s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}
		}
		r := &resourcepb.Resource{}
		if g.node != "" {
			r.Attributes = append(r.Attributes, text("quorate.node", g.node))
		}
		all = append(all, &tracepb.ResourceSpans{Resource: r, ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{s}}}})
	}
	return all
}

// put is a write as three nodes see it: n2's acknowledgement commits it, n3 is slow and outlives it.
var put = []given{
	{id: 1, name: "kv.put", goroutine: "client", start: 0, end: 5000},
	{id: 2, parent: 1, name: "kv.put", node: "n1", goroutine: "NATS service", start: 300, end: 4700},
	{id: 3, parent: 2, name: "raft.propose", node: "n1", goroutine: "caller of Propose", start: 400, end: 4600},
	{id: 4, parent: 3, name: "raft.queue", node: "n1", goroutine: "RaftCore", start: 450, end: 500},
	{id: 5, parent: 3, name: "raft.append", node: "n1", goroutine: "RaftCore", start: 500, end: 2500},
	{id: 6, parent: 3, name: "raft.replicate", node: "n1", goroutine: "worker n2", start: 600, end: 4000},
	{id: 7, parent: 6, name: "raft.append_entries", node: "n2", goroutine: "RaftCore", start: 1000, end: 3700},
	{id: 8, parent: 7, name: "raft.queue", node: "n2", goroutine: "RaftCore", start: 1000, end: 1100},
	{id: 9, parent: 7, name: "raft.append", node: "n2", goroutine: "RaftCore", start: 1100, end: 3600},
	{id: 10, parent: 3, name: "raft.replicate", node: "n1", goroutine: "worker n3", start: 600, end: 9000},
	{id: 11, parent: 10, name: "raft.append_entries", node: "n3", goroutine: "RaftCore", start: 1000, end: 8500},
	{id: 12, parent: 3, name: "raft.commit", node: "n1", goroutine: "RaftCore", start: 4000, end: 4001},
	{id: 13, parent: 3, name: "raft.apply", node: "n1", goroutine: "RaftCore", start: 4050, end: 4500},
}

func build(t *testing.T, spans []given, skew map[string]int) *Trace {
	t.Helper()
	trace, err := Build(resources(spans, skew))
	if err != nil {
		t.Fatal(err)
	}
	return trace
}

func TestDrawing(t *testing.T) {
	long := append([]given{}, put...)
	long[2].name = "raft.propose.with.a.name.that.is.much.longer.than.any.column.could.ever.be"
	long[6].name, long[6].node = "名前の長いスパン\x1b[31m", "node-with-a-long-name"
	for name, c := range map[string]struct {
		spans []given
		skew  map[string]int
		width int
	}{
		"put":     {put, nil, 100},
		"skewed":  {put, map[string]int{"n2": 70_000, "n3": -3_600_000_000}, 100},
		"orphans": {append(append([]given{}, put[:5]...), put[6:]...), nil, 100},
		"long":    {long, nil, 80},
		"narrow":  {put, nil, 40},
		"alone":   {[]given{{id: 1, name: "kv.get", goroutine: "client", start: 0, end: 500, failed: true}}, nil, 72},
		"failed": {[]given{
			{id: 1, name: "kv.get", goroutine: "client", start: 0, end: 500, failed: true},
			{id: 2, parent: 1, name: "kv.get", node: "n1", goroutine: "NATS service", start: 900, end: 800},
		}, nil, 72},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := build(t, c.spans, c.skew).Draw(&out, c.width); err != nil {
				t.Fatal(err)
			}
			waterfall, _, _ := strings.Cut(out.String(), "\n\n")
			for line := range strings.Lines(waterfall) {
				if w := uniseg.StringWidth(strings.TrimSuffix(line, "\n")); w > c.width {
					t.Errorf("a line of %d cells on a terminal of %d: %q", w, c.width, line)
				}
			}
			golden := filepath.Join("testdata", name+".txt")
			if *rewrite {
				if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if out.String() != string(want) {
				t.Errorf("the drawing is not that of %s (-rewrite accepts it):\n%s", golden, out.String())
			}
		})
	}
}

// Whatever the clocks of the nodes say, no span begins before the one that sent to it, and none is acknowledged before its end.
func TestSkewedClocksAreAligned(t *testing.T) {
	for _, skew := range []int{-3_600_000_000, -10_000, -500, 0, 200, 500, 10_000, 3_600_000_000} {
		trace := build(t, put, map[string]int{"n1": -skew / 2, "n2": skew, "n3": -skew})
		for _, parent := range trace.all {
			for _, child := range parent.children {
				if child.node != parent.node && (child.start < parent.start || child.end > parent.end+afterwards) {
					t.Errorf("skew %d µs: %s on %s [%v, %v] is not within %s on %s [%v, %v]", skew,
						child.name, child.node, child.start, child.end, parent.name, parent.node, parent.start, parent.end)
				}
			}
		}
		if skew == 0 && len(trace.clocks) != 0 {
			t.Errorf("clocks that agree were moved: %+v", trace.clocks)
		}
		if (skew > 5000 || skew < -5000) && len(trace.clocks) != 3 {
			t.Errorf("skew %d µs: want the clocks of three nodes moved, got %+v", skew, trace.clocks)
		}
	}
}

func TestMovedClockIsWithinItsUncertainty(t *testing.T) {
	const skew = 70 * time.Millisecond
	trace := build(t, put, map[string]int{"n2": int(skew / time.Microsecond)})
	if len(trace.clocks) != 1 {
		t.Fatalf("want one clock moved, got %+v", trace.clocks)
	}
	if c := trace.clocks[0]; c.node != "n2" || (c.moved+skew).Abs() > c.uncertain || c.contradictory {
		t.Errorf("the clock of n2 is %v fast, and was moved by %v ± %v", skew, c.moved, c.uncertain)
	}
}

// A service ends its span once it has answered, and may do that late: that is no difference of clocks.
func TestSpanThatEndsAfterItsAnswerMovesNoClock(t *testing.T) {
	trace := build(t, []given{
		{id: 1, name: "kv.put", goroutine: "client", start: 0, end: 1000},
		{id: 2, parent: 1, name: "kv.put", node: "n1", start: 300, end: 1200},
	}, nil)
	if len(trace.clocks) != 0 {
		t.Errorf("the clocks agree, but: %+v", trace.clocks)
	}
}

// A parent that failed may have given up before its child was done: only the sending bounds the clock.
func TestFailedParentDoesNotBoundTheEnd(t *testing.T) {
	trace := build(t, []given{
		{id: 1, name: "raft.replicate", node: "n1", start: 0, end: 100, failed: true},
		{id: 2, parent: 1, name: "raft.append_entries", node: "n2", start: 50, end: 9000},
	}, nil)
	if len(trace.clocks) != 0 {
		t.Errorf("the clocks agree, but: %+v", trace.clocks)
	}
}

func TestContradictoryClockIsSaid(t *testing.T) {
	var out bytes.Buffer
	trace := build(t, []given{
		{id: 1, name: "a", node: "n1", start: 0, end: 100},
		{id: 2, parent: 1, name: "b", node: "n2", start: 0, end: 9000},
	}, nil)
	if err := trace.Draw(&out, 80); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "contradict") {
		t.Errorf("nothing is said of a clock that fits no difference:\n%s", out.String())
	}
}

func TestCriticalPathIsTheWholeWait(t *testing.T) {
	trace := build(t, put, nil)
	var sum time.Duration
	critical := map[string]bool{}
	for _, s := range trace.all {
		if s.critical {
			sum += s.own
			critical[s.id[:1]] = true
		}
	}
	if sum != 5*time.Millisecond {
		t.Errorf("the shares of the critical path sum up to %v of 5ms", sum)
	}
	if !critical["\x07"] || !critical["\x09"] {
		t.Error("the write waited for n2's disk, which is not on the critical path")
	}
	if critical["\x0a"] || critical["\x0b"] {
		t.Error("nobody waited for n3, which is on the critical path")
	}
}

func TestBuildRefusesWhatIsNoTrace(t *testing.T) {
	if _, err := Build(nil); err != ErrEmpty {
		t.Errorf("no spans: want ErrEmpty, got %v", err)
	}
	two := resources(put[:2], nil)
	two[1].ScopeSpans[0].Spans[0].TraceId = bytes.Repeat([]byte{8}, 16)
	if _, err := Build(two); err == nil {
		t.Error("spans of two traces were taken as one")
	}
}

func TestSpanGivenTwiceCountsOnce(t *testing.T) {
	trace := build(t, append(append([]given{}, put...), put...), nil)
	if len(trace.all) != len(put) {
		t.Errorf("want %d spans, got %d", len(put), len(trace.all))
	}
}

// timed is a span with times of its own.
func timed(g given, start, end uint64) *tracepb.ResourceSpans {
	r := resources([]given{g}, nil)[0]
	s := r.ScopeSpans[0].Spans[0]
	s.StartTimeUnixNano, s.EndTimeUnixNano = start, end
	return r
}

// drawn builds and draws a trace, each of whose spans then has a bar within the line and a time that is not negative.
func drawn(t rapid.TB, spans []*tracepb.ResourceSpans, width int) {
	t.Helper()
	trace, err := Build(spans)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := trace.Draw(&out, width); err != nil {
		t.Fatal(err)
	}
	waterfall, _, _ := strings.Cut(out.String(), "\n\n")
	for line := range strings.Lines(waterfall) {
		if w := uniseg.StringWidth(strings.TrimSuffix(line, "\n")); w > max(width, narrowest) {
			t.Errorf("a line of %d cells on a terminal of %d: %q", w, width, line)
		}
	}
	for _, s := range trace.all {
		if s.start < 0 || s.end < s.start || s.end > trace.to {
			t.Errorf("%s on %s is drawn from %d to %d of %d", s.name, s.node, s.start, s.end, trace.to)
		}
	}
	for _, s := range trace.shares() {
		if s.own < 0 {
			t.Errorf("%s on %s was waited for during %d", s.name, s.node, s.own)
		}
	}
}

func TestAbsurdTimesAreDrawn(t *testing.T) {
	drawn(t, []*tracepb.ResourceSpans{
		timed(given{id: 1, name: "a", node: "n2"}, 1<<62, epoch+1_000_000),
		timed(given{id: 2, name: "b", node: "n1"}, epoch, 1),
		timed(given{id: 3, parent: 2, name: "c", node: "n0"}, 1<<63, epoch+1_000_000),
	}, 80)
	// Each clock contradicts the one before by as much as is taken, so that the differences add up along the chain.
	for _, start := range []func(i byte) uint64{
		func(i byte) uint64 { return epoch + uint64(i%2)<<61 },
		func(i byte) uint64 { return epoch - uint64(i%2)<<60 },
	} {
		var chain []*tracepb.ResourceSpans
		for i := byte(1); i < 20; i++ {
			chain = append(chain, timed(given{id: i, parent: i - 1, name: "link", node: string('a' + rune(i))}, start(i), start(i)+1000))
		}
		drawn(t, chain, 80)
	}
}

// A node without a battery for its clock says that it is 1970: its spans keep their length all the same.
func TestAClockThatWasNeverSetIsAligned(t *testing.T) {
	trace, err := Build([]*tracepb.ResourceSpans{
		timed(given{id: 1, name: "kv.put", node: "n1"}, epoch, epoch+5_000_000),
		timed(given{id: 2, parent: 1, name: "raft.append_entries", node: "n2"}, 60_000_000_000, 60_003_000_000),
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := trace.all[1]; s.start != time.Millisecond || s.end != 4*time.Millisecond {
		t.Errorf("the span of 3ms is drawn from %v to %v, want the middle of its parent's 5ms", s.start, s.end)
	}
}

// Whatever the times and the parents of the spans of several nodes are, there is a drawing.
func TestAnyTimesOfAnyNodesAreDrawn(t *testing.T) {
	anyTime := rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(epoch-1e9, epoch+1e9),
		rapid.SampledFrom([]uint64{0, 1, 1 << 60, 1 << 61, 1 << 62, 1<<63 - 1, 1 << 63, 1<<64 - 1, epoch, epoch + 1<<63}))
	kinds := rapid.SampledFrom([]tracepb.Span_SpanKind{tracepb.Span_SPAN_KIND_INTERNAL, tracepb.Span_SPAN_KIND_CLIENT, tracepb.Span_SPAN_KIND_PRODUCER, tracepb.Span_SPAN_KIND_CONSUMER})
	rapid.Check(t, func(t *rapid.T) {
		var spans []*tracepb.ResourceSpans
		for id := range rapid.IntRange(1, 20).Draw(t, "spans") {
			g := given{
				id: byte(id + 1), parent: byte(rapid.IntRange(0, 22).Draw(t, "parent")), name: "span",
				node: rapid.SampledFrom([]string{"", "n0", "n1", "n2", "n3", "n4"}).Draw(t, "node"), failed: rapid.Bool().Draw(t, "failed"), kind: kinds.Draw(t, "kind"),
			}
			spans = append(spans, timed(g, anyTime.Draw(t, "start"), anyTime.Draw(t, "end")))
		}
		drawn(t, spans, rapid.IntRange(0, 200).Draw(t, "width"))
	})
}

// A tree of more nodes than anybody has is no reason to look at each pair of them: that would not end within the time of a test.
func TestClocksOfVeryManyNodesAreAligned(t *testing.T) {
	const nodes = 5000
	id := func(i int) []byte { return []byte{byte(i >> 8), byte(i), 0, 0, 0, 0, 0, 1} }
	var spans []*tracepb.ResourceSpans
	for i := 1; i <= nodes; i++ {
		fast := uint64(i-1) * 1_000_000_000
		r := timed(given{name: "span", node: fmt.Sprintf("n%d", i)}, epoch+fast, epoch+1_000_000+fast)
		s := r.ScopeSpans[0].Spans[0]
		if s.SpanId = id(i); i > 1 {
			s.ParentSpanId = id(i / 2)
		}
		spans = append(spans, r)
	}
	trace, err := Build(spans)
	if err != nil {
		t.Fatal(err)
	}
	if len(trace.clocks) != nodes-1 {
		t.Errorf("%d clocks were moved, want all but that of the root", len(trace.clocks))
	}
	for _, s := range trace.all {
		if s.start != 0 || s.end != time.Millisecond {
			t.Fatalf("the span of %s is drawn from %v to %v, want all as one", s.node, s.start, s.end)
		}
	}
}

// A forged chain as long as a trace can be is no reason to walk up all of it for each of its spans: that would take minutes.
func TestAVeryLongChainIsPlanted(t *testing.T) {
	const length = 100_000
	id := func(i int) []byte { return []byte{byte(i >> 16), byte(i >> 8), byte(i), 0, 0, 0, 0, 1} }
	begun := time.Now()
	for name, first := range map[string]int{"chain": 0, "ring": length} {
		var spans []*tracepb.ResourceSpans
		for i := 1; i <= length; i++ {
			r := timed(given{name: "span", node: "n1"}, epoch, epoch+1000)
			s := r.ScopeSpans[0].Spans[0]
			if s.SpanId = id(i); i > 1 || first > 0 {
				s.ParentSpanId = id(max(i-1, 1))
			}
			if i == 1 && first > 0 {
				s.ParentSpanId = id(first)
			}
			spans = append(spans, r)
		}
		trace, err := Build(spans)
		if err != nil {
			t.Fatal(err)
		}
		if len(trace.roots) != 1 || len(trace.all) != length || trace.all[length-1].depth != length-1 {
			t.Errorf("the %s has %d roots, and %d spans below each other, want all below one", name, len(trace.roots), trace.all[len(trace.all)-1].depth+1)
		}
		if name == "ring" != trace.roots[0].orphan {
			t.Errorf("the root of the %s is an orphan: %v", name, trace.roots[0].orphan)
		}
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("it took %v", took)
	}
}

// movedSlowly is what alignClocks does, one pair of nodes after the other.
func movedSlowly(t *Trace) map[string]time.Duration {
	type pair struct{ of, on string }
	known := map[pair]bounds{}
	for _, relations := range t.relations() {
		for _, r := range relations {
			known[pair{r.of, r.on}] = r.bounds
		}
	}
	nodes := map[string]bool{}
	for _, s := range t.all {
		nodes[s.node] = true
	}
	order := slices.Sorted(maps.Keys(nodes))
	aligned := map[string]time.Duration{}
	for _, reference := range t.references(order) {
		if _, ok := aligned[reference]; !ok {
			aligned[reference] = 0
		}
		for {
			var best *pair
			for _, of := range order {
				for _, on := range order {
					p := pair{of, on}
					_, done := aligned[of]
					_, usable := aligned[on]
					b, related := known[p]
					if !done && usable && related && (best == nil || b.closer(known[*best])) {
						best = &p
					}
				}
			}
			if best == nil {
				break
			}
			aligned[best.of], _, _ = known[*best].from(aligned[best.on]).choose()
		}
	}
	return aligned
}

func TestEachClockIsMovedToItsClosestNeighbour(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var spans []given
		for id := range rapid.IntRange(1, 30).Draw(t, "spans") {
			start := rapid.IntRange(0, 20).Draw(t, "start") * 1000
			spans = append(spans, given{
				id: byte(id + 1), parent: byte(rapid.IntRange(0, id).Draw(t, "parent")), name: "span", node: rapid.SampledFrom([]string{"", "n0", "n1", "n2", "n3", "n4"}).Draw(t, "node"),
				start: start, end: start + rapid.IntRange(0, 20).Draw(t, "length")*1000, failed: rapid.Bool().Draw(t, "failed"),
			})
		}
		trace := &Trace{}
		if err := trace.take(resources(spans, nil)); err != nil {
			t.Fatal(err)
		}
		trace.plant()
		want := movedSlowly(trace)
		maps.DeleteFunc(want, func(_ string, moved time.Duration) bool { return moved == 0 })
		trace.alignClocks()
		got := map[string]time.Duration{}
		for _, c := range trace.clocks {
			if c.moved != 0 {
				got[c.node] = c.moved
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("moved by %v, want %v", got, want)
		}
	})
}

// Whatever spans hold, rings of parents and absurd times among it, each is drawn on one line.
func FuzzDraw(f *testing.F) {
	seed := func(spans []given) {
		raw, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: resources(spans, nil)})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, 80)
	}
	seed(put)
	seed([]given{{id: 1, parent: 2, name: "a"}, {id: 2, parent: 3, name: "b"}, {id: 3, parent: 1, name: "c"}, {id: 4, parent: 1}, {id: 5, parent: 5}})
	f.Fuzz(func(t *testing.T, raw []byte, width int) {
		var data tracepb.TracesData
		if proto.Unmarshal(raw, &data) != nil || width > 1000 {
			return
		}
		trace, err := Build(data.ResourceSpans)
		if err != nil {
			return
		}
		known := map[string]bool{}
		for _, r := range data.ResourceSpans {
			for _, scope := range r.GetScopeSpans() {
				for _, s := range scope.GetSpans() {
					known[string(s.GetSpanId())] = true
				}
			}
		}
		if len(trace.all) != len(known) {
			t.Errorf("%d spans of %d are in the tree", len(trace.all), len(known))
		}
		var out bytes.Buffer
		if err := trace.Draw(&out, width); err != nil {
			t.Fatal(err)
		}
	})
}
