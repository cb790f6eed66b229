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
	answer := m.waiting[id]
	delete(m.waiting, id)
	m.mu.Unlock()
	if answer != nil {
		answer <- msg // it has room for one, and gets one
	}
}

// send publishes a request. The answer arrives on the channel, if it ever does; forget ends the wait.
func (m *mailbox) send(subject string, header nats.Header, data []byte) (answer <-chan *nats.Msg, forget func(), err error) {
	ch := make(chan *nats.Msg, 1)
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
