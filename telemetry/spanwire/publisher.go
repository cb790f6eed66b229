package spanwire

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"quorate/telemetry"
)

const (
	// publishInterval is how long a span waits for others to be published with.
	publishInterval = 50 * time.Millisecond
	// publishTimeout is how long one publication may take before it is given up.
	publishTimeout = 2 * time.Second
)

// Subject is where the spans of a cluster are published.
func Subject(prefix, cluster string) string { return prefix + "." + cluster + ".spans" }

// Publisher is a span processor that publishes the spans that were asked for. It never blocks who ends a span, and is safe from several
// goroutines.
type Publisher struct{ batches *telemetry.Batcher }

// NewPublisher publishes on a connection, which stays the caller's and must live until Shutdown. Error: the exporter cannot start.
func NewPublisher(ctx context.Context, conn *nats.Conn, subject string) (*Publisher, error) {
	exporter, err := otlptrace.New(ctx, &uplink{conn: conn, subject: subject})
	if err != nil {
		return nil, fmt.Errorf("spans over NATS: %w", err)
	}
	return &Publisher{batches: telemetry.NewBatcher(exporter, telemetry.BatchOptions{Delay: publishInterval, Timeout: publishTimeout})}, nil
}

// OnStart does nothing.
func (p *Publisher) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd queues a span that was asked for.
func (p *Publisher) OnEnd(s sdktrace.ReadOnlySpan) {
	if asked(s.SpanContext()) {
		p.batches.OnEnd(s)
	}
}

// Shutdown publishes what waits, and ends the publisher's goroutine. It blocks until that is done or the context ends.
func (p *Publisher) Shutdown(ctx context.Context) error { return p.batches.Shutdown(ctx) }

// ForceFlush publishes what waits. It blocks until that is done or the context ends.
func (p *Publisher) ForceFlush(ctx context.Context) error { return p.batches.ForceFlush(ctx) }

// uplink is an OTLP client whose protocol is one NATS message a batch, without an answer.
type uplink struct {
	conn    *nats.Conn
	subject string
}

func (u *uplink) Start(context.Context) error { return nil }

func (u *uplink) Stop(context.Context) error { return nil }

// UploadTraces publishes the spans, in several messages if one would be too large for the server. Error: the connection's, or a span that
// is too large by itself, which is dropped.
func (u *uplink) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	if !u.conn.IsConnected() { // spans are of now: nobody waits for them when NATS is back
		return fmt.Errorf("publish spans on %s: %w", u.subject, nats.ErrDisconnected)
	}
	raw, err := Encode(spans)
	if err != nil {
		return err
	}
	if int64(len(raw)) <= u.conn.MaxPayload() {
		if err := u.conn.Publish(u.subject, raw); err != nil {
			return fmt.Errorf("publish spans on %s: %w", u.subject, err)
		}
		return nil
	}
	first, second := halves(spans)
	if first == nil {
		return fmt.Errorf("publish spans on %s: a span of %d bytes is over the server's limit of %d", u.subject, len(raw), u.conn.MaxPayload())
	}
	return errors.Join(u.UploadTraces(ctx, first), u.UploadTraces(ctx, second))
}

// halves splits spans in two; nil if there is only one.
func halves(spans []*tracepb.ResourceSpans) (first, second []*tracepb.ResourceSpans) {
	var single []*tracepb.ResourceSpans
	for _, r := range spans {
		for _, scope := range r.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				single = append(single, &tracepb.ResourceSpans{Resource: r.GetResource(), SchemaUrl: r.GetSchemaUrl(), ScopeSpans: []*tracepb.ScopeSpans{
					{Scope: scope.GetScope(), SchemaUrl: scope.GetSchemaUrl(), Spans: []*tracepb.Span{s}},
				}})
			}
		}
	}
	if len(single) < 2 {
		return nil, nil
	}
	return single[:len(single)/2], single[len(single)/2:]
}

// Encode makes a message of spans.
func Encode(spans []*tracepb.ResourceSpans) ([]byte, error) {
	raw, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return nil, fmt.Errorf("encode spans: %w", err)
	}
	return raw, nil
}
