package storage

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"quorate/node/raft"
)

// Identity says whose directory this is. It is written once, before anyone is told of the incarnation.
type Identity struct {
	// Cluster is the cluster's name.
	Cluster string
	// Peer is the node's name, and the incarnation drawn for this directory.
	Peer raft.Peer
}

// Genesis is the configuration that a cluster begins with. Every first member adopts the same one; the cluster's id is
// its hash.
type Genesis struct {
	// Cluster is the cluster's name.
	Cluster string
	// Members are the first voters in ascending order of their ids.
	Members []raft.Peer
	// MaxEntryBytes is the largest command that the cluster takes, fixed for its life: every member can carry it.
	MaxEntryBytes uint64
}

// NewGenesis returns the genesis of these members, which it sorts.
func NewGenesis(cluster string, members []raft.Peer, maxEntryBytes uint64) Genesis {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b raft.Peer) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return Genesis{Cluster: cluster, Members: members, MaxEntryBytes: maxEntryBytes}
}

// ClusterID returns the id of the cluster that begins so: the first 16 bytes of a SHA-256 over a canonical text form,
// which does not depend on any encoding library.
func (g Genesis) ClusterID() raft.ClusterID {
	h := sha256.New()
	fmt.Fprintf(h, "quorate genesis 1\ncluster %q\nmax-entry-bytes %d\n", g.Cluster, g.MaxEntryBytes)
	for _, p := range g.Members {
		fmt.Fprintf(h, "member %q %s\n", p.ID, p.Incarnation)
	}
	return raft.ClusterID(h.Sum(nil)[:16])
}

// Equal reports whether two geneses are the same.
func (g Genesis) Equal(other Genesis) bool {
	return g.Cluster == other.Cluster && g.MaxEntryBytes == other.MaxEntryBytes && slices.Equal(g.Members, other.Members)
}
