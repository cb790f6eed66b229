package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"quorate/transport"
	"quorate/transport/natsrpc"
)

// links are the node's connections: one for Raft, one for clients, so that a flood of requests cannot delay a heartbeat.
type links struct {
	transport transport.Transport
	events    natsrpc.Events

	mu           sync.Mutex // guards what follows until open has returned
	raft, client *nats.Conn
	snapshots    *nats.Conn
	isOpen       bool
	// clients tells whether client is up.
	clients *natsrpc.Liveness
}

// open connects to NATS, or takes the transport that the configuration gives instead. It blocks until NATS is reached.
func (l *links) open(ctx context.Context, n *Node) error {
	if n.cfg.Transport != nil {
		t, err := n.cfg.Transport(n.self, n.boot)
		if err != nil {
			return fmt.Errorf("transport: %w", err)
		}
		l.set(nil, nil, nil, t)
		return nil
	}
	connect := func(purpose string) (*nats.Conn, error) {
		return natsrpc.Connect(ctx, natsrpc.ConnectOptions{
			URL: n.cfg.URL, Name: fmt.Sprintf("quorate %s %s %s", n.cfg.Cluster, n.cfg.ID, purpose),
			Logger: n.logger, Options: n.cfg.NATSOptions, Events: &l.events, Changed: n.watch.elsewhere,
		})
	}
	raftConn, err := connect("raft")
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	clientConn, err := connect("clients")
	if err != nil {
		raftConn.Close()
		return fmt.Errorf("connect to NATS: %w", err)
	}
	// Snapshots are megabytes: neither heartbeats nor clients shall wait behind them.
	snapshotConn, err := connect("snapshots")
	if err != nil {
		raftConn.Close()
		clientConn.Close()
		return fmt.Errorf("connect to NATS: %w", err)
	}
	t, err := natsrpc.New(raftConn, natsrpc.Config{
		Prefix: n.cfg.Prefix, Cluster: n.cfg.Cluster, Self: n.self, Boot: n.boot, Logger: n.logger,
	})
	if err != nil {
		raftConn.Close()
		clientConn.Close()
		snapshotConn.Close()
		return fmt.Errorf("transport: %w", err)
	}
	l.set(raftConn, clientConn, snapshotConn, t)
	n.watch.elsewhere()
	return l.serveStatus(n)
}

func (l *links) set(raftConn, clientConn, snapshotConn *nats.Conn, t transport.Transport) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.raft, l.client, l.snapshots, l.transport, l.isOpen = raftConn, clientConn, snapshotConn, t, true
	if clientConn != nil {
		l.clients = natsrpc.WatchLiveness(clientConn)
	}
}

func (l *links) snapshotConn() *nats.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.snapshots
}

// serveStatus answers `<prefix>.<cluster>.node.<id>.status`, and with all other nodes `<prefix>.<cluster>.status`.
func (l *links) serveStatus(n *Node) error {
	answer := func(m *nats.Msg) {
		status, err := json.Marshal(n.Status())
		if err == nil {
			err = m.Respond(status)
		}
		if err != nil && !errors.Is(err, nats.ErrMsgNoReply) {
			n.logger.Warn("cannot answer a status request", "error", err)
		}
	}
	for _, subject := range []string{
		fmt.Sprintf("%s.%s.node.%s.status", n.cfg.Prefix, n.cfg.Cluster, n.cfg.ID),
		fmt.Sprintf("%s.%s.status", n.cfg.Prefix, n.cfg.Cluster),
	} {
		if _, err := l.client.Subscribe(subject, answer); err != nil {
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
	}
	return nil
}

func (l *links) clientConn() *nats.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.client
}

func (l *links) opened() (transport.Transport, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.transport, l.isOpen
}

func (l *links) status() NATSStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := NATSStatus{
		Disconnects: l.events.Disconnects.Load(), Reconnects: l.events.Reconnects.Load(), SlowConsumers: l.events.SlowConsumers.Load(),
	}
	if l.raft == nil {
		return s
	}
	if s.Connected = l.transport.Connected() && l.clients.Up(); s.Connected { // who dials answers nothing else
		s.URL = natsrpc.RedactURLs(l.raft.ConnectedUrl())
	}
	return s
}

func (l *links) refused() map[string]uint64 {
	if t, ok := l.opened(); ok {
		return t.Refused()
	}
	return nil
}

func (l *links) maxRequestBytes() int {
	if t, ok := l.opened(); ok {
		return t.MaxRequestBytes()
	}
	return 0
}

// close ends the transport and the connections.
func (l *links) close(ctx context.Context) error {
	t, ok := l.opened()
	if !ok {
		return nil
	}
	err := t.Close(ctx)
	if l.raft != nil {
		l.clients.Close()
		l.raft.Close()
		l.client.Close()
		l.snapshots.Close()
	}
	return err
}
