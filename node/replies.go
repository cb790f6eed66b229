package node

import (
	"quorate/node/raft"
	"quorate/transport"
)

// replies keeps the peers' requests that are not answered yet, by the token the engine was given. It belongs to RaftCore.
type replies struct {
	waiting map[raft.ReplyTo]transport.Incoming
	last    raft.ReplyTo
}

func (r *replies) keep(in transport.Incoming) raft.ReplyTo {
	if r.waiting == nil {
		r.waiting = map[raft.ReplyTo]transport.Incoming{}
	}
	r.last++
	in.Request = nil // the entries are the engine's now
	r.waiting[r.last] = in
	return r.last
}

func (r *replies) answer(to raft.ReplyTo, response transport.Response) {
	if in, ok := r.waiting[to]; ok {
		delete(r.waiting, to)
		in.Reply(response)
	}
}

func (r *replies) refuseAll(reason string) {
	for to, in := range r.waiting {
		delete(r.waiting, to)
		in.Refuse(reason)
	}
}
