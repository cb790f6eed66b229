package kv

import (
	"fmt"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
)

// mailbox matches answers with requests: one subscription for all of a client's, a number for each. The NATS library's own requests
// cannot be waited for beside other things without a goroutine for each.
type mailbox struct {
	nc     *nats.Conn
	prefix string
	sub    *nats.Subscription

	mu      sync.Mutex // guards all below
	last    uint64
	waiting map[uint64]chan *nats.Msg
}

func openMailbox(nc *nats.Conn) (*mailbox, error) {
	m := &mailbox{nc: nc, prefix: nc.NewInbox() + ".", waiting: map[uint64]chan *nats.Msg{}}
	sub, err := nc.Subscribe(m.prefix+"*", m.deliver)
	if err != nil {
		return nil, fmt.Errorf("subscribe for answers: %w", err)
	}
	m.sub = sub
	return m, nil
}

func (m *mailbox) deliver(msg *nats.Msg) {
	id, err := strconv.ParseUint(msg.Subject[len(m.prefix):], 36, 64)
	if err != nil {
		return // not an answer to anything that was asked
	}
	m.mu.Lock()
	answer := m.waiting[id] // nil, which takes nothing, if nobody waits any more
	m.mu.Unlock()
	select {
	case answer <- msg:
	default:
	}
}

// mostAnswers are kept of those to one request: one from each node that leads, or believes so.
const mostAnswers = 4

// send publishes a request. Answers arrive on the channel, if ever any does; forget ends the wait.
func (m *mailbox) send(subject string, header nats.Header, data []byte) (answer <-chan *nats.Msg, forget func(), err error) {
	ch := make(chan *nats.Msg, mostAnswers)
	m.mu.Lock()
	m.last++
	id := m.last
	m.waiting[id] = ch
	m.mu.Unlock()
	forget = func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.waiting, id)
	}
	reply := m.prefix + strconv.FormatUint(id, 36)
	if header == nil {
		err = m.nc.PublishRequest(subject, reply, data)
	} else {
		err = m.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Header: header, Data: data})
	}
	if err != nil {
		forget()
		return nil, nil, err
	}
	return ch, forget, nil
}

// noResponders reports whether an answer is NATS' own, that nobody is subscribed.
func noResponders(msg *nats.Msg) bool {
	return len(msg.Data) == 0 && msg.Header.Get("Status") == "503"
}

func (m *mailbox) close() error {
	if err := m.sub.Unsubscribe(); err != nil && m.nc.IsConnected() {
		return fmt.Errorf("unsubscribe from answers: %w", err)
	}
	return nil
}
