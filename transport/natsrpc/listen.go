package natsrpc

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node/raft"
	"quorate/transport"
)

// Listen makes sure that nobody else answers under this node's name, and then subscribes to its subjects. It blocks for that, a few
// seconds at most. Errors: *DuplicateError; transport.ErrDisconnected, when the connection was lost and did not come back
// in that time; or why the context ended.
func (t *Transport) Listen(ctx context.Context, handle func(transport.Incoming)) error {
	if err := t.alone(ctx); err != nil {
		return err
	}
	t.handle = handle
	// A subscription each: a vote or a ping does not wait behind megabytes of entries.
	name := raft.Peer{ID: t.cfg.Self.ID}
	for rpc, to := range map[string]raft.Peer{
		rpcVote: t.cfg.Self, rpcAppend: t.cfg.Self, rpcPing: t.cfg.Self, rpcHello: name, rpcAdopt: name,
		rpcInstall: t.cfg.Self, rpcNow: t.cfg.Self, rpcRead: t.cfg.Self, rpcPropose: t.cfg.Self,
	} {
		if err := t.listen(t.subject(to, rpc)); err != nil {
			return err
		}
	}
	// Peers may call as soon as this returns.
	if err := t.nc.FlushTimeout(dialTimeout); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		t.logger.Warn("subscriptions are not confirmed yet", "error", err)
	}
	return nil
}

func (t *Transport) listen(subject string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return transport.ErrClosed
	}
	sub, err := subscribe(t.nc, subject, t.request)
	if err != nil {
		return err
	}
	t.subs = append(t.subs, sub)
	return nil
}

// request checks a request and hands it on.
func (t *Transport) request(m *nats.Msg) {
	arrived := time.Now()
	from, req, answer := t.gate.Receive(m.Data)
	if answer != nil {
		t.reply(m, answer)
		return
	}
	t.handle(transport.Incoming{
		Request: req,
		From:    from,
		Arrived: arrived,
		Trace:   ExtractTrace(m.Header),
		Reply:   func(r transport.Response) { t.reply(m, r) },
		Refuse:  func(reason string) { t.reply(m, &transport.Refusal{Reason: reason}) },
	})
}

// reply answers a request, if NATS is there. It does not wait for that: RaftCore answers.
func (t *Transport) reply(m *nats.Msg, response any) {
	if !t.live.Up() {
		return
	}
	room := t.rooms.take()
	defer t.rooms.put(room)
	b, err := room.encode(t.gate, response)
	if err == nil {
		err = m.Respond(b)
	}
	if err != nil && !errors.Is(err, nats.ErrMsgNoReply) && !errors.Is(err, nats.ErrConnectionClosed) && t.live.Up() {
		t.logger.Warn("cannot answer a peer", "error", err)
	}
}
