package transport

import (
	"errors"
	"fmt"

	"quorate/node/raft"
	"quorate/transport/raftpb"
)

// ReadIndexRequest asks the leader for a read index: the answerer applies up to it, and then a read of its own state machine is
// linearizable (dissertation section 6.4). It is refused by who does not lead.
type ReadIndexRequest struct{}

// ReadIndexResponse answers a ReadIndexRequest, once a quorum has confirmed the leader.
type ReadIndexResponse struct {
	From  raft.Peer
	Index uint64
}

// ProposeRequest is a proposal that a node hands on to the leader.
type ProposeRequest struct {
	// Kind of the entry: a command, a command with an id, a session.
	Kind                        raft.EntryKind
	Data                        []byte
	Session, Sequence, LowWater uint64
}

// Failure says why a proposal that was handed on has no result.
type Failure uint8

// The failures of a proposal, as they stand on the wire.
const (
	FailureNone Failure = iota
	// FailureNotLeader: nothing was proposed.
	FailureNotLeader
	// FailureBusy: nothing was proposed.
	FailureBusy
	// FailureLost: it was overwritten.
	FailureLost
	// FailureUnknown: it may or may not take effect.
	FailureUnknown
	// FailureSession: the session is not known, or has expired; the command did not take effect.
	FailureSession
	// FailureStopped: nothing was proposed.
	FailureStopped
	// FailureTooLarge: nothing was proposed.
	FailureTooLarge
	failures
)

// ProposeResponse answers a ProposeRequest.
type ProposeResponse struct {
	From    raft.Peer
	Failure Failure
	ID      raft.LogID
	Value   []byte
	// Leader is who leads, with FailureNotLeader, if the answerer knows.
	Leader raft.NodeID
}

// encodeLater encodes the requests that came after the first ones.
func encodeLater(pb *raftpb.Envelope, message any) {
	switch m := message.(type) {
	case *raft.InstallRequest:
		pb.Body = &raftpb.Envelope_InstallRequest{InstallRequest: &raftpb.InstallRequest{
			Term: m.Term, Leader: encodePeer(m.Leader),
			Snapshot: &raftpb.Snapshot{
				Name: m.Snapshot.Name, Digest: m.Snapshot.Digest[:], Last: encodeLogID(m.Snapshot.Last), Bytes: m.Snapshot.Bytes,
			},
		}}
	case *raft.TimeoutNowRequest:
		pb.Body = &raftpb.Envelope_TimeoutNowRequest{TimeoutNowRequest: &raftpb.TimeoutNowRequest{Term: m.Term, Leader: encodePeer(m.Leader)}}
	case *raft.TimeoutNowResponse:
		pb.Body = &raftpb.Envelope_TimeoutNowResponse{TimeoutNowResponse: &raftpb.TimeoutNowResponse{Term: m.Term, Standing: m.Standing}}
	case *ReadIndexRequest:
		pb.Body = &raftpb.Envelope_ReadIndexRequest{ReadIndexRequest: &raftpb.ReadIndexRequest{}}
	case *ReadIndexResponse:
		pb.Body = &raftpb.Envelope_ReadIndexResponse{ReadIndexResponse: &raftpb.ReadIndexResponse{Index: m.Index}}
	case *ProposeRequest:
		pb.Body = &raftpb.Envelope_ProposeRequest{ProposeRequest: &raftpb.ProposeRequest{
			Kind: uint32(m.Kind), Data: m.Data, Session: m.Session, Sequence: m.Sequence, LowWater: m.LowWater,
		}}
	case *ProposeResponse:
		pb.Body = &raftpb.Envelope_ProposeResponse{ProposeResponse: &raftpb.ProposeResponse{
			Failure: uint32(m.Failure), Id: encodeLogID(m.ID), Value: m.Value, Leader: string(m.Leader),
		}}
	}
}

// maxSnapshotName bounds the name of a manifest.
const maxSnapshotName = 256

func decodeInstallRequest(m *raftpb.InstallRequest) (any, error) {
	leader, err := decodePeer(m.Leader)
	if err != nil {
		return nil, err
	}
	s := m.Snapshot
	if s == nil || s.Name == "" || len(s.Name) > maxSnapshotName {
		return nil, errors.New("an offer of no snapshot")
	}
	req := &raft.InstallRequest{Term: m.Term, Leader: leader, Snapshot: raft.SnapshotRef{Name: s.Name, Bytes: s.Bytes}}
	if len(s.Digest) != len(req.Snapshot.Digest) {
		return nil, fmt.Errorf("a snapshot's digest of %d bytes", len(s.Digest))
	}
	copy(req.Snapshot.Digest[:], s.Digest)
	if req.Snapshot.Last, err = decodeLogID(s.Last); err != nil {
		return nil, err
	}
	return req, checkBounds("term", m.Term)
}

func decodeProposeRequest(m *raftpb.ProposeRequest) (any, error) {
	switch kind := raft.EntryKind(min(m.Kind, 255)); kind {
	case raft.EntryCommand, raft.EntryOnce, raft.EntrySession, raft.EntryBlank:
	default:
		return nil, fmt.Errorf("a proposal of kind %d", m.Kind)
	}
	return &ProposeRequest{
		Kind: raft.EntryKind(m.Kind), Data: m.Data, Session: m.Session, Sequence: m.Sequence, LowWater: m.LowWater,
	}, errors.Join(checkBounds("session", m.Session), checkBounds("sequence", m.Sequence), checkBounds("low-water mark", m.LowWater))
}

func decodeProposeResponse(m *raftpb.ProposeResponse, env Envelope) (any, error) {
	id, err := decodeLogID(m.Id)
	if err != nil {
		return nil, err
	}
	if m.Failure >= uint32(failures) {
		return nil, fmt.Errorf("a failure %d of a proposal", m.Failure)
	}
	resp := &ProposeResponse{From: env.From, Failure: Failure(m.Failure), ID: id, Value: m.Value}
	if m.Leader != "" {
		if err := CheckName(m.Leader); err != nil {
			return nil, err
		}
		resp.Leader = raft.NodeID(m.Leader)
	}
	return resp, nil
}
