package main

import (
	"context"
	"net"
	"sync"
	"time"
)

// interruptibleDialer dials for nats.Connect, which takes no context: a server that accepts a connection and says nothing would else keep
// a user waiting who has given up. Once the connection is made, its reconnects are not bound to the context: what is under way when it
// ends is finished in good order.
type interruptibleDialer struct {
	ctx     context.Context
	timeout time.Duration

	mu   sync.Mutex
	made bool
	// stops take back that connections are closed when the context ends.
	stops []func() bool
}

// Dial implements nats.CustomDialer.
func (d *interruptibleDialer) Dial(network, address string) (net.Conn, error) {
	d.mu.Lock()
	ctx, made := d.ctx, d.made
	d.mu.Unlock()
	if made {
		ctx = context.WithoutCancel(ctx)
	}
	conn, err := (&net.Dialer{Timeout: d.timeout}).DialContext(ctx, network, address)
	if err != nil || made {
		return conn, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stops = append(d.stops, stop)
	return conn, nil
}

// connected ends what the context means to the connections.
func (d *interruptibleDialer) connected() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.made = true
	for _, stop := range d.stops {
		stop()
	}
	d.stops = nil
}
