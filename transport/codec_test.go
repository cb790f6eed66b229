package transport

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/transport/raftpb"
)

var (
	alice = raft.Peer{ID: "n1", Incarnation: 7}
	bob   = raft.Peer{ID: "n2", Incarnation: 8}
	env   = Envelope{Cluster: raft.ClusterID{1, 2, 3}, From: alice, Boot: 99}
)

func sealed(t testing.TB, term, index uint64, data string) raft.Entry {
	t.Helper()
	e := raft.Entry{ID: raft.LogID{Term: term, Index: index}, Kind: raft.EntryCommand, Time: 5, Data: []byte(data)}
	if err := storage.SealEntry(&e); err != nil {
		t.Fatal(err)
	}
	return e
}

// messages is one message of each kind.
func messages(t testing.TB) []any {
	genesis := storage.NewGenesis("c", []raft.Peer{alice, bob}, 1000)
	return []any{
		&raft.VoteRequest{Term: 3, Candidate: alice, Last: raft.LogID{Term: 2, Index: 9}, Pre: true},
		&raft.VoteResponse{From: alice, Term: 3, Granted: true},
		&raft.AppendRequest{
			Term: 4, Leader: alice, Prev: raft.LogID{Term: 3, Index: 9}, Commit: 8, Successors: []raft.NodeID{"n2", "n3"},
			Entries: []raft.Entry{sealed(t, 3, 10, "a"), sealed(t, 4, 11, "b")},
		},
		&raft.AppendRequest{Term: 4, Leader: alice},
		&raft.AppendResponse{From: alice, Term: 4, Status: raft.AppendMatched, Matched: raft.LogID{Term: 4, Index: 11}},
		&raft.AppendResponse{From: alice, Term: 4, Status: raft.AppendConflict, Hint: raft.LogID{Term: 1, Index: 2}},
		&HelloRequest{Cluster: "c", Members: []raft.NodeID{"n1", "n2"}},
		&HelloResponse{From: alice, Members: []raft.NodeID{"n1"}, Genesis: &genesis, MaxPayloadBytes: 1 << 20},
		&HelloResponse{From: alice},
		&HelloResponse{From: alice, Priority: -3},
		&AdoptRequest{Genesis: genesis},
		&AdoptResponse{From: alice, Refusal: "no"},
		&raft.VoteRequest{Term: 3, Candidate: alice, Transfer: true},
		&raft.VoteResponse{From: alice, Term: 3, Removed: 77},
		&raft.AppendRequest{Term: 4, Leader: alice, Snapshot: raft.LogID{Term: 2, Index: 5}},
		&raft.AppendResponse{From: alice, Term: 4, Status: raft.AppendInstalling, Versions: raft.Versions{Protocol: 3, Command: 1 << 31}},
		&raft.InstallRequest{Term: 4, Leader: alice, Snapshot: raft.SnapshotRef{
			Name: "manifest-1", Digest: [32]byte{1, 2, 3}, Last: raft.LogID{Term: 2, Index: 5}, Bytes: 1 << 40,
		}},
		&raft.TimeoutNowRequest{Term: 4, Leader: alice},
		&raft.TimeoutNowResponse{From: alice, Term: 4, Standing: true},
		&ReadIndexRequest{},
		&ReadIndexResponse{From: alice, Index: 12},
		&ProposeRequest{Kind: raft.EntryCommand, Data: []byte("x"), Session: 9, Sequence: 3, LowWater: 2},
		&ProposeResponse{From: alice, Failure: FailureNotLeader, Leader: "n2"},
		&ProposeResponse{From: alice, ID: raft.LogID{Term: 2, Index: 5}, Value: []byte("y")},
		&PingRequest{},
		&PingResponse{From: alice},
		&Refusal{Reason: "busy"},
	}
}

func TestMessagesComeBackAsTheyWereSent(t *testing.T) {
	for _, message := range messages(t) {
		b, err := Encode(nil, env, message)
		if err != nil {
			t.Fatal(err)
		}
		gotEnv, got, err := Decode(b)
		if err != nil {
			t.Fatalf("%T: %v", message, err)
		}
		if gotEnv != env {
			t.Errorf("%T: envelope %+v, want %+v", message, gotEnv, env)
		}
		if !reflect.DeepEqual(got, message) {
			t.Errorf("got %+v, want %+v", got, message)
		}
	}
}

func TestWhatIsNoMessageIsNotEncoded(t *testing.T) {
	if _, err := Encode(nil, env, "hello"); err == nil {
		t.Fatal("a string was encoded")
	}
}

func TestBadMessagesAreRefusedWithTheReason(t *testing.T) {
	appendOf := func(req *raftpb.AppendRequest) *raftpb.Envelope {
		if req.Leader == nil {
			req.Leader = encodePeer(alice)
		}
		return &raftpb.Envelope{Version: Version, From: encodePeer(alice), Body: &raftpb.Envelope_AppendRequest{AppendRequest: req}}
	}
	wild, err := storage.EncodeGenesis(storage.NewGenesis("c", []raft.Peer{{ID: "*", Incarnation: 1}}, 1000))
	if err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte(nil), sealed(t, 1, 1, "abc").Raw...)
	damaged[len(damaged)/2] ^= 1
	for name, c := range map[string]struct {
		pb     *raftpb.Envelope
		reason string
		says   string
	}{
		"no version":         {&raftpb.Envelope{From: encodePeer(alice)}, ReasonVersion, "version 0"},
		"newer version":      {&raftpb.Envelope{Version: 9, From: encodePeer(alice)}, ReasonVersion, "version 9, this node knows 1"},
		"no sender":          {&raftpb.Envelope{Version: Version}, ReasonMalformed, "name of 0 bytes"},
		"long sender":        {&raftpb.Envelope{Version: Version, From: &raftpb.Peer{Id: strings.Repeat("x", 257)}}, ReasonMalformed, "257 bytes"},
		"short cluster id":   {&raftpb.Envelope{Version: Version, From: encodePeer(alice), Cluster: []byte{1}}, ReasonMalformed, "cluster id of 1 bytes"},
		"no body":            {&raftpb.Envelope{Version: Version, From: encodePeer(alice)}, ReasonMalformed, "no body"},
		"absurd term":        {appendOf(&raftpb.AppendRequest{Term: 1 << 63}), ReasonMalformed, "out of bounds"},
		"absurd commit":      {appendOf(&raftpb.AppendRequest{Term: 1, Commit: 1<<64 - 1}), ReasonMalformed, "out of bounds"},
		"half a log id":      {appendOf(&raftpb.AppendRequest{Term: 1, Prev: &raftpb.LogID{Index: 4}}), ReasonMalformed, "half zero"},
		"no leader":          {appendOf(&raftpb.AppendRequest{Term: 1, Leader: &raftpb.Peer{}}), ReasonMalformed, "name of 0 bytes"},
		"entry of the dead":  {appendOf(&raftpb.AppendRequest{Term: 1, Entries: [][]byte{damaged}}), ReasonEntry, "checksum"},
		"gap in the entries": {appendOf(&raftpb.AppendRequest{Term: 1, Entries: [][]byte{sealed(t, 1, 2, "a").Raw}}), ReasonMalformed, "does not follow"},
		"entry of the future": {
			appendOf(&raftpb.AppendRequest{Term: 1, Entries: [][]byte{sealed(t, 2, 1, "a").Raw}}), ReasonMalformed, "does not follow",
		},
		"entry too short": {appendOf(&raftpb.AppendRequest{Term: 1, Entries: [][]byte{{1}}}), ReasonEntry, "entry of 1 bytes"},
		"illegal sender":  {&raftpb.Envelope{Version: Version, From: &raftpb.Peer{Id: "n1.*"}}, ReasonMalformed, `"n1.*"`},
		"illegal successor": {
			appendOf(&raftpb.AppendRequest{Term: 1, Successors: []string{"n2", "n 3"}}), ReasonMalformed, `"n 3"`,
		},
		"too many successors": {
			appendOf(&raftpb.AppendRequest{Term: 1, Successors: make([]string, 1025)}), ReasonMalformed, "1025 names",
		},
		"genesis of illegal names": {&raftpb.Envelope{
			Version: Version, From: encodePeer(alice), Body: &raftpb.Envelope_AdoptRequest{AdoptRequest: &raftpb.AdoptRequest{Genesis: wild}},
		}, ReasonMalformed, `"*"`},
		"status unknown": {&raftpb.Envelope{
			Version: Version, From: encodePeer(alice), Body: &raftpb.Envelope_AppendResponse{AppendResponse: &raftpb.AppendResponse{Status: 77}},
		}, ReasonMalformed, "status 77"},
		"broken genesis": {&raftpb.Envelope{
			Version: Version, From: encodePeer(alice), Body: &raftpb.Envelope_AdoptRequest{AdoptRequest: &raftpb.AdoptRequest{Genesis: []byte{1}}},
		}, ReasonEntry, "genesis"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := c.pb.MarshalVT()
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = Decode(b)
			var refused *MessageError
			if !errors.As(err, &refused) || refused.Reason != c.reason || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want reason %q saying %q", err, c.reason, c.says)
			}
		})
	}
	if _, _, err := Decode([]byte("not protobuf")); err == nil {
		t.Fatal("text was decoded")
	}
}

// FuzzDecode: whatever arrives, Decode returns; and what it accepts is encoded to something that means the same.
func FuzzDecode(f *testing.F) {
	for _, message := range messages(f) {
		b, err := Encode(nil, env, message)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		gotEnv, message, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Encode(nil, gotEnv, message)
		if err != nil {
			t.Fatalf("%T was decoded and cannot be encoded: %v", message, err)
		}
		_, second, err := Decode(again)
		if err != nil || !reflect.DeepEqual(message, second) {
			t.Fatalf("%+v came back as %+v (%v)", message, second, err)
		}
	})
}
