package natsrpc

import (
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// Liveness knows whether a connection is up. The connection itself answers that only when it is not just dialing, which takes seconds where
// something accepts and says nothing.
type Liveness struct {
	nc      *nats.Conn
	up      atomic.Bool
	changes chan nats.Status
	ended   chan struct{}
}

// WatchLiveness watches a connection until Close.
func WatchLiveness(nc *nats.Conn) *Liveness {
	l := newLiveness(nc)
	go l.watch()
	return l
}

func newLiveness(nc *nats.Conn) *Liveness {
	l := &Liveness{nc: nc, changes: nc.StatusChanged(), ended: make(chan struct{})}
	l.up.Store(nc.IsConnected())
	return l
}

func (l *Liveness) watch() {
	defer close(l.ended)
	for status := range l.changes {
		l.up.Store(status == nats.CONNECTED)
		if len(l.changes) == 0 { // the library leaves out what does not fit: this may not be the newest
			l.up.Store(l.nc.IsConnected())
		}
	}
}

// Up reports whether the connection is up, at once. It is safe from several goroutines.
func (l *Liveness) Up() bool { return l.up.Load() }

// reconnect has the connection made anew, and is down at once.
func (l *Liveness) reconnect() {
	l.up.Store(false) // first: the changes that follow say when it is up again
	_ = l.nc.ForceReconnect()
}

// Close ends the watch, and waits for that. The connection stays its owner's.
func (l *Liveness) Close() {
	l.nc.RemoveStatusListener(l.changes)
	<-l.ended
}
