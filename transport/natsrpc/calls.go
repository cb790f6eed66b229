package natsrpc

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/transport"
)

// calls matches answers with requests: one inbox subscription for all, a number for each. No goroutine waits for an answer:
// done is called by the subscription's, or by a timer's.
type calls struct {
	nc    *nats.Conn
	live  *Liveness
	inbox string
	sub   *subscription
	// decode makes an answer of what came back.
	decode func(b []byte, arrived time.Time) transport.Answer

	// finishing counts the calls of done that are under way beside the subscription's. It is added to under mu, while
	// not closed.
	finishing sync.WaitGroup

	mu      sync.Mutex // guards all below
	last    uint64
	waiting map[uint64]call
	closed  bool
}

type call struct {
	done  func(transport.Answer)
	timer *time.Timer
}

func openCalls(live *Liveness, decode func([]byte, time.Time) transport.Answer) (*calls, error) {
	nc := live.nc
	c := &calls{nc: nc, live: live, decode: decode, inbox: nc.NewInbox() + ".", waiting: map[uint64]call{}}
	var err error
	if c.sub, err = subscribe(nc, c.inbox+"*", c.answered); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *calls) send(subject string, header nats.Header, b []byte, timeout time.Duration, done func(transport.Answer)) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		done(failed(transport.ErrClosed))
		return
	}
	c.last++
	id := c.last
	c.waiting[id] = call{done: done, timer: time.AfterFunc(timeout, func() { c.finish(id, failed(transport.ErrTimeout)) })}
	c.mu.Unlock()
	inbox := c.inbox + strconv.FormatUint(id, 36)
	var err error
	if header == nil {
		err = c.nc.PublishRequest(subject, inbox, b)
	} else {
		err = c.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: inbox, Header: header, Data: b})
	}
	switch {
	case err == nil:
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining), errors.Is(err, nats.ErrReconnectBufExceeded):
		c.finishApart(id, failed(transport.ErrDisconnected))
	default:
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.live.reconnect() // the server reads no more: the next one would wait as long, until pings find that out
		}
		c.finishApart(id, failed(err))
	}
}

// fail gives an error to the caller of a request that is not sent. It is given from another goroutine: whoever calls may
// hold what done waits for, or be the only one to read the channel that done sends to.
func (c *calls) fail(err error, done func(transport.Answer)) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		done(failed(transport.ErrClosed))
		return
	}
	defer c.mu.Unlock()
	c.finishing.Go(func() { done(failed(err)) })
}

func failed(err error) transport.Answer { return transport.Answer{Err: err, Arrived: time.Now()} }

func (c *calls) answered(m *nats.Msg) {
	arrived := time.Now()
	id, err := strconv.ParseUint(m.Subject[len(c.inbox):], 36, 64)
	if err != nil {
		return // not an answer to anything that was asked
	}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		c.finish(id, transport.Answer{Err: transport.ErrNoResponders, Arrived: arrived})
		return
	}
	c.finish(id, c.decode(m.Data, arrived))
}

// finish gives the answer to whoever waits for it. A second answer finds nobody.
func (c *calls) finish(id uint64, answer transport.Answer) {
	if waiting, ok := c.take(id); ok {
		defer c.finishing.Done()
		waiting.done(answer)
	}
}

func (c *calls) finishApart(id uint64, answer transport.Answer) {
	if waiting, ok := c.take(id); ok {
		go func() {
			defer c.finishing.Done()
			waiting.done(answer)
		}()
	}
}

// take removes a call that waits, and counts it among those that are finishing.
func (c *calls) take(id uint64) (call, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	waiting, ok := c.waiting[id]
	if ok {
		delete(c.waiting, id)
		waiting.timer.Stop()
		c.finishing.Add(1)
	}
	return waiting, ok
}

// close fails what waits, and returns when done will not be called any more.
func (c *calls) close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	waiting := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	for _, w := range waiting {
		w.timer.Stop()
		w.done(failed(transport.ErrClosed))
	}
	err := c.sub.close(ctx)
	finished := make(chan struct{})
	go func() {
		c.finishing.Wait()
		close(finished)
	}()
	select {
	case <-finished:
		return err
	case <-ctx.Done():
		return errors.Join(err, ctx.Err())
	}
}
