package natsrpc

import (
	"sync"

	"quorate/transport"
)

// rooms are buffers for encoding messages. The client library has copied or written a message when its publishing returns, so the next
// message can be encoded in the same place: at full load that is most of the memory that a leader would need anew.
type rooms struct{ pool sync.Pool }

type room struct{ b []byte }

func (r *rooms) take() *room {
	if free, ok := r.pool.Get().(*room); ok {
		return free
	}
	return &room{}
}

func (r *rooms) put(used *room) { r.pool.Put(used) }

// encode encodes a message. What it returns is valid until the room is put back.
func (r *room) encode(gate *transport.Gate, message any) ([]byte, error) {
	b, err := gate.Encode(r.b, message)
	if err == nil {
		r.b = b
	}
	return b, err
}
