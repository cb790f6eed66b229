package transport

import (
	"errors"
	"fmt"
	"slices"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/transport/raftpb"
)

// Version of the messages that this package writes and reads.
const Version = 1

// Reasons to refuse a message. They are counted.
const (
	ReasonMalformed = "malformed message"
	ReasonVersion   = "unknown version"
	ReasonCluster   = "message of another cluster"
	ReasonNoCluster = "the cluster's genesis is not agreed yet"
	ReasonEntry     = "damaged log entry"
)

// MessageError says why a message was not accepted.
type MessageError struct {
	// Reason is one of the constants above.
	Reason string
	Err    error
}

func (e *MessageError) Error() string {
	if e.Err == nil {
		return e.Reason
	}
	return e.Reason + ": " + e.Err.Error()
}

func (e *MessageError) Unwrap() error { return e.Err }

// Envelope says who sends a message.
type Envelope struct {
	Cluster raft.ClusterID
	From    raft.Peer
	Boot    uint64
}

// Refusal is a response that says why there is none.
type Refusal struct{ Reason string }

// Encode encodes a request or a response, into room if that has the capacity. The entries of an AppendRequest travel in their Raw form.
func Encode(room []byte, env Envelope, message any) ([]byte, error) {
	pb := &raftpb.Envelope{Version: Version, From: encodePeer(env.From), Boot: env.Boot}
	if env.Cluster != (raft.ClusterID{}) {
		pb.Cluster = env.Cluster[:]
	}
	if err := encodeBody(pb, message); err != nil {
		return nil, err
	}
	size := pb.SizeVT()
	b := slices.Grow(room[:0], size)[:size]
	if _, err := pb.MarshalToSizedBufferVT(b); err != nil {
		return nil, fmt.Errorf("encode %T: %w", message, err)
	}
	return b, nil
}

func encodeBody(pb *raftpb.Envelope, message any) error {
	switch m := message.(type) {
	case *raft.VoteRequest:
		pb.Body = &raftpb.Envelope_VoteRequest{VoteRequest: &raftpb.VoteRequest{
			Term: m.Term, Candidate: encodePeer(m.Candidate), Last: encodeLogID(m.Last), Pre: m.Pre, Transfer: m.Transfer,
		}}
	case *raft.VoteResponse:
		pb.Body = &raftpb.Envelope_VoteResponse{VoteResponse: &raftpb.VoteResponse{Term: m.Term, Granted: m.Granted, Pre: m.Pre, Removed: m.Removed}}
	case *raft.AppendRequest:
		entries := make([][]byte, len(m.Entries))
		for i := range m.Entries {
			entries[i] = m.Entries[i].Raw
		}
		pb.Body = &raftpb.Envelope_AppendRequest{AppendRequest: &raftpb.AppendRequest{
			Term: m.Term, Leader: encodePeer(m.Leader), Prev: encodeLogID(m.Prev), Entries: entries, Commit: m.Commit,
			Successors: encodeIDs(m.Successors), Snapshot: encodeLogID(m.Snapshot),
		}}
	case *raft.AppendResponse:
		pb.Body = &raftpb.Envelope_AppendResponse{AppendResponse: &raftpb.AppendResponse{
			Term: m.Term, Status: uint32(m.Status), Matched: encodeLogID(m.Matched), Hint: encodeLogID(m.Hint),
			ProtocolVersion: m.Versions.Protocol, CommandVersion: m.Versions.Command,
		}}
	case *HelloRequest:
		pb.Body = &raftpb.Envelope_HelloRequest{HelloRequest: &raftpb.HelloRequest{Cluster: m.Cluster, Members: encodeIDs(m.Members)}}
	case *HelloResponse:
		body := &raftpb.HelloResponse{Members: encodeIDs(m.Members), MaxPayloadBytes: m.MaxPayloadBytes, Priority: m.Priority}
		if m.Genesis != nil {
			genesis, err := storage.EncodeGenesis(*m.Genesis)
			if err != nil {
				return fmt.Errorf("encode %T: %w", message, err)
			}
			body.Genesis = genesis
		}
		pb.Body = &raftpb.Envelope_HelloResponse{HelloResponse: body}
	case *AdoptRequest:
		genesis, err := storage.EncodeGenesis(m.Genesis)
		if err != nil {
			return fmt.Errorf("encode %T: %w", message, err)
		}
		pb.Body = &raftpb.Envelope_AdoptRequest{AdoptRequest: &raftpb.AdoptRequest{Genesis: genesis}}
	case *AdoptResponse:
		pb.Body = &raftpb.Envelope_AdoptResponse{AdoptResponse: &raftpb.AdoptResponse{Refusal: m.Refusal}}
	case *PingRequest:
		pb.Body = &raftpb.Envelope_PingRequest{PingRequest: &raftpb.PingRequest{}}
	case *PingResponse:
		pb.Body = &raftpb.Envelope_PingResponse{PingResponse: &raftpb.PingResponse{}}
	case *raft.InstallRequest, *raft.TimeoutNowRequest, *raft.TimeoutNowResponse, *ReadIndexRequest, *ReadIndexResponse,
		*ProposeRequest, *ProposeResponse:
		encodeLater(pb, message)
	case *Refusal:
		pb.Body = &raftpb.Envelope_Refusal{Refusal: &raftpb.Refusal{Reason: m.Reason}}
	default:
		return fmt.Errorf("encode: %T is no message", message)
	}
	return nil
}

// Decode decodes a message and checks everything in it that can be checked without knowing the cluster. The message may share
// memory with b. Errors are *MessageError; the envelope then holds what could be read of it.
func Decode(b []byte) (Envelope, any, error) {
	var pb raftpb.Envelope
	if err := makeRoom(&pb, b); err != nil {
		return Envelope{}, nil, err
	}
	if err := pb.UnmarshalVTUnsafe(b); err != nil {
		return Envelope{}, nil, &MessageError{Reason: ReasonMalformed, Err: err}
	}
	env := Envelope{Boot: pb.Boot}
	if pb.Version != Version {
		return env, nil, &MessageError{Reason: ReasonVersion, Err: fmt.Errorf("version %d, this node knows %d", pb.Version, Version)}
	}
	var err error
	if env.From, err = decodePeer(pb.From); err != nil {
		return env, nil, &MessageError{Reason: ReasonMalformed, Err: err}
	}
	switch len(pb.Cluster) {
	case 0:
	case len(env.Cluster):
		copy(env.Cluster[:], pb.Cluster)
	default:
		return env, nil, &MessageError{Reason: ReasonMalformed, Err: fmt.Errorf("a cluster id of %d bytes", len(pb.Cluster))}
	}
	message, err := decodeBody(&pb, env)
	if err != nil {
		reason := ReasonMalformed
		switch {
		case errors.Is(err, storage.ErrNewer):
			reason = ReasonVersion
		case errors.Is(err, storage.ErrCorrupt):
			reason = ReasonEntry
		}
		return env, nil, &MessageError{Reason: reason, Err: err}
	}
	return env, message, nil
}

func decodeBody(pb *raftpb.Envelope, env Envelope) (any, error) {
	switch body := pb.Body.(type) {
	case *raftpb.Envelope_VoteRequest:
		return decodeVoteRequest(body.VoteRequest)
	case *raftpb.Envelope_VoteResponse:
		m := body.VoteResponse
		return &raft.VoteResponse{From: env.From, Term: m.Term, Granted: m.Granted, Pre: m.Pre, Removed: m.Removed},
			errors.Join(checkBounds("term", m.Term), checkBounds("index", m.Removed))
	case *raftpb.Envelope_AppendRequest:
		return decodeAppendRequest(body.AppendRequest)
	case *raftpb.Envelope_AppendResponse:
		return decodeAppendResponse(body.AppendResponse, env)
	case *raftpb.Envelope_HelloRequest:
		members, err := decodeIDs(body.HelloRequest.Members)
		return &HelloRequest{Cluster: body.HelloRequest.Cluster, Members: members}, err
	case *raftpb.Envelope_HelloResponse:
		return decodeHelloResponse(body.HelloResponse, env)
	case *raftpb.Envelope_AdoptRequest:
		genesis, err := decodeGenesis(body.AdoptRequest.Genesis)
		return &AdoptRequest{Genesis: genesis}, err
	case *raftpb.Envelope_AdoptResponse:
		return &AdoptResponse{From: env.From, Refusal: body.AdoptResponse.Refusal}, nil
	case *raftpb.Envelope_PingRequest:
		return &PingRequest{}, nil
	case *raftpb.Envelope_PingResponse:
		return &PingResponse{From: env.From}, nil
	case *raftpb.Envelope_InstallRequest:
		return decodeInstallRequest(body.InstallRequest)
	case *raftpb.Envelope_TimeoutNowRequest:
		m := body.TimeoutNowRequest
		leader, err := decodePeer(m.Leader)
		return &raft.TimeoutNowRequest{Term: m.Term, Leader: leader}, errors.Join(err, checkBounds("term", m.Term))
	case *raftpb.Envelope_TimeoutNowResponse:
		m := body.TimeoutNowResponse
		return &raft.TimeoutNowResponse{From: env.From, Term: m.Term, Standing: m.Standing}, checkBounds("term", m.Term)
	case *raftpb.Envelope_ReadIndexRequest:
		return &ReadIndexRequest{}, nil
	case *raftpb.Envelope_ReadIndexResponse:
		return &ReadIndexResponse{From: env.From, Index: body.ReadIndexResponse.Index}, checkBounds("index", body.ReadIndexResponse.Index)
	case *raftpb.Envelope_ProposeRequest:
		return decodeProposeRequest(body.ProposeRequest)
	case *raftpb.Envelope_ProposeResponse:
		return decodeProposeResponse(body.ProposeResponse, env)
	case *raftpb.Envelope_Refusal:
		return &Refusal{Reason: body.Refusal.Reason}, nil
	}
	return nil, errors.New("the message has no body that this version knows")
}

func decodeVoteRequest(m *raftpb.VoteRequest) (any, error) {
	candidate, err := decodePeer(m.Candidate)
	if err != nil {
		return nil, err
	}
	last, err := decodeLogID(m.Last)
	if err != nil {
		return nil, err
	}
	return &raft.VoteRequest{Term: m.Term, Candidate: candidate, Last: last, Pre: m.Pre, Transfer: m.Transfer}, checkBounds("term", m.Term)
}

func decodeAppendRequest(m *raftpb.AppendRequest) (any, error) {
	leader, err := decodePeer(m.Leader)
	if err != nil {
		return nil, err
	}
	prev, err := decodeLogID(m.Prev)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(checkBounds("term", m.Term), checkBounds("commit index", m.Commit)); err != nil {
		return nil, err
	}
	req := &raft.AppendRequest{Term: m.Term, Leader: leader, Prev: prev, Commit: m.Commit}
	if req.Successors, err = decodeIDs(m.Successors); err != nil {
		return nil, err
	}
	if req.Snapshot, err = decodeLogID(m.Snapshot); err != nil {
		return nil, err
	}
	if len(m.Entries) > 0 {
		req.Entries = make([]raft.Entry, len(m.Entries))
	}
	last := prev
	for i, raw := range m.Entries {
		entry, err := storage.OpenEntry(raw)
		if err != nil {
			return nil, err
		}
		if entry.ID.Index != last.Index+1 || entry.ID.Term < last.Term || entry.ID.Term > m.Term {
			return nil, fmt.Errorf("entry %v does not follow on %v in term %d", entry.ID, last, m.Term)
		}
		req.Entries[i], last = entry, entry.ID
	}
	return req, nil
}

func decodeAppendResponse(m *raftpb.AppendResponse, env Envelope) (any, error) {
	matched, err := decodeLogID(m.Matched)
	if err != nil {
		return nil, err
	}
	hint, err := decodeLogID(m.Hint)
	if err != nil {
		return nil, err
	}
	status := raft.AppendStatus(min(m.Status, 255))
	if status < raft.AppendMatched || status > raft.AppendDamaged {
		return nil, fmt.Errorf("append status %d", m.Status)
	}
	return &raft.AppendResponse{
		From: env.From, Term: m.Term, Status: status, Matched: matched, Hint: hint,
		Versions: raft.Versions{Protocol: m.ProtocolVersion, Command: m.CommandVersion},
	}, checkBounds("term", m.Term)
}

func decodeHelloResponse(m *raftpb.HelloResponse, env Envelope) (any, error) {
	members, err := decodeIDs(m.Members)
	if err != nil {
		return nil, err
	}
	resp := &HelloResponse{From: env.From, Members: members, MaxPayloadBytes: m.MaxPayloadBytes, Priority: m.Priority}
	if len(m.Genesis) > 0 {
		genesis, err := decodeGenesis(m.Genesis)
		if err != nil {
			return nil, err
		}
		resp.Genesis = &genesis
	}
	return resp, nil
}

// decodeGenesis refuses names that could not stand in a subject: whoever adopts a genesis calls its members by name.
func decodeGenesis(b []byte) (storage.Genesis, error) {
	genesis, err := storage.DecodeGenesis(b)
	if err != nil {
		return storage.Genesis{}, err
	}
	if err := CheckName(genesis.Cluster); err != nil {
		return storage.Genesis{}, fmt.Errorf("genesis: %w", err)
	}
	for _, p := range genesis.Members {
		if err := CheckName(string(p.ID)); err != nil {
			return storage.Genesis{}, fmt.Errorf("genesis: %w", err)
		}
	}
	return genesis, nil
}

func encodePeer(p raft.Peer) *raftpb.Peer {
	return &raftpb.Peer{Id: string(p.ID), Incarnation: uint64(p.Incarnation)}
}

func encodeLogID(id raft.LogID) *raftpb.LogID {
	if id == (raft.LogID{}) {
		return nil
	}
	return &raftpb.LogID{Term: id.Term, Index: id.Index}
}

func encodeIDs(ids []raft.NodeID) []string {
	if len(ids) == 0 {
		return nil
	}
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = string(id)
	}
	return names
}

// Bounds of what is taken from the wire.
const (
	maxNameBytes = 64
	maxNames     = 1024
)

func decodePeer(p *raftpb.Peer) (raft.Peer, error) {
	if err := CheckName(p.GetId()); err != nil {
		return raft.Peer{}, err
	}
	return raft.Peer{ID: raft.NodeID(p.Id), Incarnation: raft.Incarnation(p.Incarnation)}, nil
}

func decodeLogID(id *raftpb.LogID) (raft.LogID, error) {
	decoded := raft.LogID{Term: id.GetTerm(), Index: id.GetIndex()}
	if (decoded.Term == 0) != (decoded.Index == 0) {
		return decoded, fmt.Errorf("log id %v is half zero", decoded)
	}
	return decoded, errors.Join(checkBounds("term", decoded.Term), checkBounds("index", decoded.Index))
}

func decodeIDs(names []string) ([]raft.NodeID, error) {
	if len(names) == 0 {
		return nil, nil
	}
	if len(names) > maxNames {
		return nil, fmt.Errorf("a list of %d names", len(names))
	}
	ids := make([]raft.NodeID, len(names))
	for i, name := range names {
		if err := CheckName(name); err != nil {
			return nil, err
		}
		ids[i] = raft.NodeID(name)
	}
	return ids, nil
}

// CheckName reports what is wrong with the name of a node or a cluster: it must be a NATS subject token of 1 to 64 letters,
// digits, '-' and '_'.
func CheckName(name string) error {
	if name == "" || len(name) > maxNameBytes {
		return fmt.Errorf("a name of %d bytes", len(name))
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return fmt.Errorf("name %q has a character that is no letter, digit, '-' or '_'", name)
		}
	}
	return nil
}

// checkBounds refuses numbers that no cluster can reach: arithmetic on them could overflow.
func checkBounds(what string, v uint64) error {
	if v > storage.MaxIndex {
		return fmt.Errorf("%s %d is out of bounds", what, v)
	}
	return nil
}
