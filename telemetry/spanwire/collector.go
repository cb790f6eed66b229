package spanwire

import (
	"context"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

const (
	// quiet is for how long nothing new of a trace may arrive before it counts as complete, without gaps: a node publishes every publishInterval.
	quiet = 6 * publishInterval
	// maxSpans and maxBytes are how much of one trace is kept, against whoever floods the subject.
	maxSpans = 100_000
	maxBytes = 32 << 20
)

// Collector gathers the spans that are published for one cluster. It belongs to one goroutine.
type Collector struct{ messages *nats.Subscription }

// Collect subscribes. It returns when the server knows of it, so that nothing that is asked for afterwards is missed. Error: the
// connection's.
func Collect(ctx context.Context, conn *nats.Conn, subject string) (*Collector, error) {
	messages, err := conn.SubscribeSync(subject)
	if err != nil {
		return nil, fmt.Errorf("collect spans on %s: %w", subject, err)
	}
	if err := conn.FlushWithContext(ctx); err != nil {
		_ = messages.Unsubscribe() // with a connection that is broken already
		return nil, fmt.Errorf("collect spans on %s: %w", subject, err)
	}
	return &Collector{messages: messages}, nil
}

// Close ends the subscription.
func (c *Collector) Close() error {
	if err := c.messages.Unsubscribe(); err != nil {
		return fmt.Errorf("collect spans: %w", err)
	}
	return nil
}

// Gather waits for the spans of a trace, some of which the caller may have itself. It returns them all as soon as there is a root, each
// parent is there and nothing new of it has come for a while; else what there is when the context ends, and complete is false. Messages that are
// malformed, and spans of other traces, are passed over, and hold nothing up. Error: the connection's, with the spans there are.
func (c *Collector) Gather(ctx context.Context, id trace.TraceID, own []*tracepb.ResourceSpans) (spans []*tracepb.ResourceSpans, complete bool, err error) {
	g := gathering{id: id, known: map[string]bool{}, missing: map[string]bool{}}
	g.add(own)
	for !g.full() {
		silent, err := c.hear(ctx, &g)
		switch {
		case ctx.Err() != nil:
			return g.spans, g.complete(), nil
		case err != nil:
			return g.spans, false, fmt.Errorf("collect spans: %w", err)
		case silent && g.complete():
			return g.spans, true, nil
		}
	}
	return g.spans, false, nil
}

// hear adds the next spans of the trace that are new. It is silent if none come for a while, whatever else does.
func (c *Collector) hear(ctx context.Context, g *gathering) (silent bool, err error) {
	patience, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	for before := g.count; g.count == before; {
		m, err := c.messages.NextMsgWithContext(patience)
		switch {
		case err == nil:
			if more, err := Decode(m.Data); err == nil {
				g.add(more)
			}
		case patience.Err() != nil:
			return true, nil
		default:
			return false, err
		}
	}
	return false, nil
}

// gathering is what is there of one trace.
type gathering struct {
	id    trace.TraceID
	spans []*tracepb.ResourceSpans
	count int
	bytes int // of spans, and of the resources they came with
	// known are the ids of spans, missing those of parents that are not known.
	known, missing map[string]bool
	rooted         bool
}

func (g *gathering) complete() bool { return g.rooted && len(g.missing) == 0 }

func (g *gathering) full() bool { return g.count >= maxSpans || g.bytes >= maxBytes }

// add takes the spans of the trace that are new.
func (g *gathering) add(resources []*tracepb.ResourceSpans) {
	for _, r := range resources {
		kept := &tracepb.ResourceSpans{Resource: r.GetResource(), SchemaUrl: r.GetSchemaUrl()}
		for _, scope := range r.GetScopeSpans() {
			ours := slices.DeleteFunc(slices.Clone(scope.GetSpans()), func(s *tracepb.Span) bool { return !g.takes(s) })
			if len(ours) > 0 {
				kept.ScopeSpans = append(kept.ScopeSpans, &tracepb.ScopeSpans{Scope: scope.GetScope(), SchemaUrl: scope.GetSchemaUrl(), Spans: ours})
			}
		}
		if len(kept.ScopeSpans) > 0 {
			g.spans = append(g.spans, kept)
			g.bytes += proto.Size(kept)
		}
	}
}

func (g *gathering) takes(s *tracepb.Span) bool {
	span, parent := string(s.GetSpanId()), string(s.GetParentSpanId())
	if string(s.GetTraceId()) != string(g.id[:]) || g.known[span] || g.full() {
		return false
	}
	g.count++
	g.known[span] = true
	delete(g.missing, span)
	switch {
	case parent == "":
		g.rooted = true
	case !g.known[parent]:
		g.missing[parent] = true
	}
	return true
}
