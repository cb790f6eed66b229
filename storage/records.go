package storage

import (
	"errors"
	"fmt"
	"time"

	"quorate/node/raft"
	"quorate/storage/entrypb"
)

// recordFormat is the format of the records in this file. A newer one is refused: what it means is not known here.
const recordFormat = 1

// maxNameBytes bounds names from outside.
const maxNameBytes = 256

// Each record is checked in the same way when it is written and when it is read: a node must not write what it will refuse to read
// at its next start.

// EncodeMembership encodes a configuration, as it stands in an entry's data.
func EncodeMembership(m *raft.Membership) ([]byte, error) {
	if err := checkMembership(m); err != nil {
		return nil, fmt.Errorf("encode a membership: %w", err)
	}
	pb := &entrypb.Membership{Format: recordFormat, Members: make([]*entrypb.Member, 0, len(m.Members))}
	for _, member := range m.Members {
		pb.Members = append(pb.Members, &entrypb.Member{
			Peer: encodePeer(member.Peer), Voter: member.Voter, Outgoing: member.Outgoing, Retain: member.Retain,
		})
	}
	return pb.MarshalVT()
}

// DecodeMembership decodes a configuration. Errors wrap ErrCorrupt or ErrNewer.
func DecodeMembership(b []byte) (*raft.Membership, error) {
	var pb entrypb.Membership
	if err := pb.UnmarshalVT(b); err != nil {
		return nil, corrupt("membership", err)
	}
	if err := checkFormat(pb.Format); err != nil {
		return nil, corrupt("membership", err)
	}
	m := &raft.Membership{Members: make([]raft.Member, 0, len(pb.Members))}
	for _, member := range pb.Members {
		m.Members = append(m.Members, raft.Member{
			Peer: decodePeer(member.Peer), Voter: member.Voter, Outgoing: member.Outgoing, Retain: member.Retain,
		})
	}
	if err := checkMembership(m); err != nil {
		return nil, corrupt("membership", err)
	}
	return m, nil
}

func checkMembership(m *raft.Membership) error {
	if m == nil {
		return errors.New("there is none")
	}
	for _, member := range m.Members {
		if err := checkName("a node id", string(member.ID)); err != nil {
			return err
		}
	}
	return m.Validate()
}

// EncodeSetting encodes a setting, as it stands in an entry's data.
func EncodeSetting(s *raft.Setting) ([]byte, error) {
	if err := checkSetting(s); err != nil {
		return nil, fmt.Errorf("encode a setting: %w", err)
	}
	pb := &entrypb.Setting{
		Format: recordFormat, Lease: int64(s.Lease), ProtocolVersion: s.Versions.Protocol, CommandVersion: s.Versions.Command,
	}
	return pb.MarshalVT()
}

// DecodeSetting decodes a setting. It refuses one that says more than is known here. Errors wrap ErrCorrupt or ErrNewer.
func DecodeSetting(b []byte) (*raft.Setting, error) {
	var pb entrypb.Setting
	if err := pb.UnmarshalVT(b); err != nil {
		return nil, corrupt("setting", err)
	}
	if err := checkFormat(pb.Format); err != nil {
		return nil, corrupt("setting", err)
	}
	if len(pb.ProtoReflect().GetUnknown()) > 0 {
		return nil, corrupt("setting", fmt.Errorf("it says more than is known here: %w", ErrNewer))
	}
	s := &raft.Setting{
		Lease: time.Duration(pb.Lease), Versions: raft.Versions{Protocol: pb.ProtocolVersion, Command: pb.CommandVersion},
	}
	if err := checkSetting(s); err != nil {
		return nil, corrupt("setting", err)
	}
	return s, nil
}

func checkSetting(s *raft.Setting) error {
	if s == nil {
		return errors.New("there is none")
	}
	return s.Validate()
}

// EncodeGenesis encodes a genesis.
func EncodeGenesis(g Genesis) ([]byte, error) {
	if err := checkGenesis(g); err != nil {
		return nil, fmt.Errorf("encode a genesis: %w", err)
	}
	pb := &entrypb.Genesis{
		Format: recordFormat, Cluster: g.Cluster, MaxEntryBytes: g.MaxEntryBytes,
		Members: make([]*entrypb.Peer, 0, len(g.Members)),
	}
	for _, p := range g.Members {
		pb.Members = append(pb.Members, encodePeer(p))
	}
	return pb.MarshalVT()
}

// DecodeGenesis decodes a genesis. Errors wrap ErrCorrupt or ErrNewer.
func DecodeGenesis(b []byte) (Genesis, error) {
	var pb entrypb.Genesis
	if err := pb.UnmarshalVT(b); err != nil {
		return Genesis{}, corrupt("genesis", err)
	}
	if err := checkFormat(pb.Format); err != nil {
		return Genesis{}, corrupt("genesis", err)
	}
	g := Genesis{Cluster: pb.Cluster, MaxEntryBytes: pb.MaxEntryBytes, Members: make([]raft.Peer, 0, len(pb.Members))}
	for _, p := range pb.Members {
		g.Members = append(g.Members, decodePeer(p))
	}
	if err := checkGenesis(g); err != nil {
		return Genesis{}, corrupt("genesis", err)
	}
	return g, nil
}

// checkGenesis refuses, among other things, members out of order: the cluster's id is a hash over them in their order.
func checkGenesis(g Genesis) error {
	if err := checkName("a cluster name", g.Cluster); err != nil {
		return err
	}
	if g.MaxEntryBytes == 0 {
		return errors.New("no limit of an entry's size")
	}
	m := raft.Membership{Members: make([]raft.Member, 0, len(g.Members))}
	for _, p := range g.Members {
		m.Members = append(m.Members, raft.Member{Peer: p, Voter: true})
	}
	return checkMembership(&m)
}

// EncodeIdentity encodes an identity.
func EncodeIdentity(id Identity) ([]byte, error) {
	if err := checkIdentity(id); err != nil {
		return nil, fmt.Errorf("encode an identity: %w", err)
	}
	pb := &entrypb.Identity{Format: recordFormat, Cluster: id.Cluster, Peer: encodePeer(id.Peer)}
	return pb.MarshalVT()
}

// DecodeIdentity decodes an identity. Errors wrap ErrCorrupt or ErrNewer.
func DecodeIdentity(b []byte) (Identity, error) {
	var pb entrypb.Identity
	if err := pb.UnmarshalVT(b); err != nil {
		return Identity{}, corrupt("identity", err)
	}
	if err := checkFormat(pb.Format); err != nil {
		return Identity{}, corrupt("identity", err)
	}
	id := Identity{Cluster: pb.Cluster, Peer: decodePeer(pb.Peer)}
	if err := checkIdentity(id); err != nil {
		return Identity{}, corrupt("identity", err)
	}
	return id, nil
}

func checkIdentity(id Identity) error {
	if err := checkName("a cluster name", id.Cluster); err != nil {
		return err
	}
	return checkName("a node id", string(id.Peer.ID))
}

// EncodeVote encodes a vote.
func EncodeVote(v raft.Vote) ([]byte, error) {
	if err := checkVote(v); err != nil {
		return nil, fmt.Errorf("encode a vote: %w", err)
	}
	pb := &entrypb.Vote{Format: recordFormat, Term: v.Term, For: string(v.For)}
	return pb.MarshalVT()
}

// DecodeVote decodes a vote. Errors wrap ErrCorrupt or ErrNewer.
func DecodeVote(b []byte) (raft.Vote, error) {
	var pb entrypb.Vote
	if err := pb.UnmarshalVT(b); err != nil {
		return raft.Vote{}, corrupt("vote", err)
	}
	if err := checkFormat(pb.Format); err != nil {
		return raft.Vote{}, corrupt("vote", err)
	}
	v := raft.Vote{Term: pb.Term, For: raft.NodeID(pb.For)}
	if err := checkVote(v); err != nil {
		return raft.Vote{}, corrupt("vote", err)
	}
	return v, nil
}

func checkVote(v raft.Vote) error {
	if v.Term > MaxIndex {
		return fmt.Errorf("term %d is out of bounds", v.Term)
	}
	if v.For == "" {
		return nil // no vote given in this term yet
	}
	return checkName("a node id", string(v.For))
}

// EncodeLogID encodes a log id.
func EncodeLogID(id raft.LogID) ([]byte, error) {
	if err := checkLogID(id); err != nil {
		return nil, fmt.Errorf("encode a log id: %w", err)
	}
	pb := &entrypb.LogID{Format: recordFormat, Term: id.Term, Index: id.Index}
	return pb.MarshalVT()
}

// DecodeLogID decodes a log id. Errors wrap ErrCorrupt or ErrNewer.
func DecodeLogID(b []byte) (raft.LogID, error) {
	var pb entrypb.LogID
	if err := pb.UnmarshalVT(b); err != nil {
		return raft.LogID{}, corrupt("log id", err)
	}
	if err := checkFormat(pb.Format); err != nil {
		return raft.LogID{}, corrupt("log id", err)
	}
	id := raft.LogID{Term: pb.Term, Index: pb.Index}
	if err := checkLogID(id); err != nil {
		return raft.LogID{}, corrupt("log id", err)
	}
	return id, nil
}

func checkLogID(id raft.LogID) error {
	if id.Term > MaxIndex || id.Index > MaxIndex || (id.Term == 0) != (id.Index == 0) {
		return fmt.Errorf("%v is out of bounds", id)
	}
	return nil
}

func encodePeer(p raft.Peer) *entrypb.Peer {
	return &entrypb.Peer{Id: string(p.ID), Incarnation: uint64(p.Incarnation)}
}

// decodePeer returns a peer without a name if there is none, which the checks refuse.
func decodePeer(p *entrypb.Peer) raft.Peer {
	return raft.Peer{ID: raft.NodeID(p.GetId()), Incarnation: raft.Incarnation(p.GetIncarnation())}
}

func checkName(what, name string) error {
	if name == "" || len(name) > maxNameBytes {
		return fmt.Errorf("%s of %d bytes", what, len(name))
	}
	return nil
}

func checkFormat(format uint32) error {
	switch {
	case format == 0:
		return errors.New("it has no format")
	case format > recordFormat:
		return fmt.Errorf("format %d is not known here: %w", format, ErrNewer)
	}
	return nil
}

// corrupt says what is wrong with a record. What is only too new to be understood is not corrupt.
func corrupt(what string, err error) error {
	if errors.Is(err, ErrNewer) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w: %w", what, ErrCorrupt, err)
}
