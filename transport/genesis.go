package transport

import (
	"quorate/node/raft"
	"quorate/storage"
)

// HelloRequest asks a name who it is, before there is a cluster id. It is the one request, with AdoptRequest, that is
// sent to a name and not to an incarnation.
type HelloRequest struct {
	// Cluster is the cluster's name.
	Cluster string
	// Members is the list the sender was started with, in ascending order, or empty.
	Members []raft.NodeID
}

// HelloResponse says who answers and what it knows of the genesis.
type HelloResponse struct {
	From    raft.Peer
	Members []raft.NodeID
	// Genesis that the answerer has adopted, or nil.
	Genesis *storage.Genesis
	// MaxPayloadBytes is what the NATS server of the answerer offers.
	MaxPayloadBytes int64
	// Priority is how much the answerer should lead.
	Priority int32
}

// AdoptRequest asks a listed member to adopt a genesis.
type AdoptRequest struct {
	Genesis storage.Genesis
}

// AdoptResponse says that the genesis is on the answerer's disk, or why not.
type AdoptResponse struct {
	From raft.Peer
	// Refusal is empty, or says why the genesis was not adopted.
	Refusal string
}

// PingRequest asks whether a peer's process is there at all. It is answered by the transport's goroutine, not by
// RaftCore: what counts is that somebody is subscribed.
type PingRequest struct{}

// PingResponse answers a PingRequest.
type PingResponse struct {
	From raft.Peer
}
