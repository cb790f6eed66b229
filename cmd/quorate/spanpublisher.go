package main

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/telemetry/spanwire"
)

// spanPublisher publishes the spans of one node that `quorate trace` asks for. Its connection is its own: spans delay neither a heartbeat
// nor a request, and are lost rather than queued while NATS is away.
type spanPublisher struct {
	*spanwire.Publisher
	conn *nats.Conn
}

// startSpanPublisher returns before NATS is reached, as the node does.
func startSpanPublisher(ctx context.Context, cfg memberConfig) (*spanPublisher, error) {
	options := append([]nats.Option{
		nats.Name(fmt.Sprintf("quorate %s/%s spans", cfg.cluster, cfg.id)),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectBufSize(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { // by default it prints, whatever form the log has
			cfg.logger.Warn("NATS reports an error to the connection for spans", "cluster", cfg.cluster, "node", string(cfg.id), "error", err)
		}),
	}, cfg.options...)
	conn, err := nats.Connect(cfg.url, options...)
	if err != nil {
		return nil, fmt.Errorf("start node %s: connect for its spans: %w", cfg.id, err)
	}
	publisher, err := spanwire.NewPublisher(ctx, conn, spanwire.Subject(subjectPrefix, cfg.cluster))
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start node %s: %w", cfg.id, err)
	}
	return &spanPublisher{Publisher: publisher, conn: conn}, nil
}

// Shutdown publishes what waits, and closes the connection. It blocks until that is done or the context ends.
func (p *spanPublisher) Shutdown(ctx context.Context) error {
	defer p.conn.Close()
	return p.Publisher.Shutdown(ctx)
}
