package raft

import "fmt"

// NodeID is the name of a node, unique in its cluster: a NATS subject token.
type NodeID string

// Incarnation identifies one directory of a node. It is drawn at random when the directory is made, and is on disk
// before anyone is told. A name that comes back with another incarnation has lost its disk and with it its votes.
// Zero means not known.
type Incarnation uint64

// String returns the incarnation as 16 hexadecimal digits, as it stands in subjects.
func (i Incarnation) String() string { return fmt.Sprintf("%016x", uint64(i)) }

// Peer is a node together with the incarnation of its directory. Votes and acknowledgements count only from the very
// peer that the configuration names.
type Peer struct {
	ID          NodeID
	Incarnation Incarnation
}

// String returns "id/incarnation".
func (p Peer) String() string { return string(p.ID) + "/" + p.Incarnation.String() }

// ClusterID identifies a cluster: the hash of its genesis. Every message carries it.
type ClusterID [16]byte

// String returns the cluster id as 32 hexadecimal digits.
func (c ClusterID) String() string { return fmt.Sprintf("%x", c[:]) }
