package storage_test

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/entrypb"
)

var name = rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`)

func drawPeers(t *rapid.T) []raft.Peer {
	names := rapid.SliceOfNDistinct(name, 1, 9, rapid.ID).Draw(t, "names")
	slices.Sort(names)
	peers := make([]raft.Peer, len(names))
	for i, n := range names {
		peers[i] = raft.Peer{ID: raft.NodeID(n), Incarnation: raft.Incarnation(rapid.Uint64().Draw(t, "incarnation"))}
	}
	return peers
}

func drawMembership(t *rapid.T) *raft.Membership {
	m := &raft.Membership{}
	for _, p := range drawPeers(t) {
		m.Members = append(m.Members, raft.Member{
			Peer: p, Voter: rapid.Bool().Draw(t, "voter"), Outgoing: rapid.Bool().Draw(t, "outgoing"), Retain: rapid.Bool().Draw(t, "retain"),
		})
	}
	m.Members[rapid.IntRange(0, len(m.Members)-1).Draw(t, "at least this one votes")].Voter = true
	return m
}

func drawSetting(t *rapid.T) *raft.Setting {
	return &raft.Setting{
		Lease:    time.Duration(rapid.Int64Range(0, int64(raft.MaxLease)).Draw(t, "lease")),
		Versions: raft.Versions{Protocol: rapid.Uint32().Draw(t, "protocol"), Command: rapid.Uint32().Draw(t, "command")},
	}
}

// roundTrip says that what was encoded is decoded, and that encoding again gives the same bytes.
func roundTrip[T any](t *rapid.T, v T, encode func(T) ([]byte, error), decode func([]byte) (T, error)) {
	t.Helper()
	b, err := encode(v)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, v) {
		t.Fatalf("got %+v, want %+v", got, v)
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bounded := rapid.Uint64Range(1, storage.MaxIndex)
		roundTrip(t, drawMembership(t), storage.EncodeMembership, storage.DecodeMembership)
		roundTrip(t, drawSetting(t), storage.EncodeSetting, storage.DecodeSetting)
		roundTrip(t, storage.Genesis{
			Cluster: name.Draw(t, "cluster"), Members: drawPeers(t), MaxEntryBytes: bounded.Draw(t, "limit"),
		}, storage.EncodeGenesis, storage.DecodeGenesis)
		roundTrip(t, storage.Identity{
			Cluster: name.Draw(t, "cluster"), Peer: drawPeers(t)[0],
		}, storage.EncodeIdentity, storage.DecodeIdentity)
		roundTrip(t, raft.Vote{Term: bounded.Draw(t, "term"), For: drawPeers(t)[0].ID}, storage.EncodeVote, storage.DecodeVote)
		roundTrip(t, raft.LogID{Term: bounded.Draw(t, "term"), Index: bounded.Draw(t, "index")}, storage.EncodeLogID, storage.DecodeLogID)
	})
}

// A node must not write what it refuses to read at its next start.
func TestEncodersRefuseWhatDecodersWould(t *testing.T) {
	n1, n2 := raft.Peer{ID: "n1", Incarnation: 1}, raft.Peer{ID: "n2", Incarnation: 2}
	long := raft.NodeID(strings.Repeat("x", 257))
	for what, err := range map[string]error{
		"nil membership":          second(storage.EncodeMembership(nil)),
		"membership of nobody":    second(storage.EncodeMembership(&raft.Membership{})),
		"membership, long name":   second(storage.EncodeMembership(raft.NewMembership(raft.Peer{ID: long}))),
		"nil setting":             second(storage.EncodeSetting(nil)),
		"setting, no lease":       second(storage.EncodeSetting(&raft.Setting{Lease: -1})),
		"setting, absurd lease":   second(storage.EncodeSetting(&raft.Setting{Lease: raft.MaxLease + 1})),
		"genesis, no cluster":     second(storage.EncodeGenesis(storage.Genesis{Members: []raft.Peer{n1}, MaxEntryBytes: 1})),
		"genesis, no limit":       second(storage.EncodeGenesis(storage.Genesis{Cluster: "c", Members: []raft.Peer{n1}})),
		"genesis of nobody":       second(storage.EncodeGenesis(storage.Genesis{Cluster: "c", MaxEntryBytes: 1})),
		"genesis, wrong order":    second(storage.EncodeGenesis(storage.Genesis{Cluster: "c", Members: []raft.Peer{n2, n1}, MaxEntryBytes: 1})),
		"genesis, a member twice": second(storage.EncodeGenesis(storage.Genesis{Cluster: "c", Members: []raft.Peer{n1, n1}, MaxEntryBytes: 1})),
		"identity of nobody":      second(storage.EncodeIdentity(storage.Identity{Cluster: "c"})),
		"identity, no cluster":    second(storage.EncodeIdentity(storage.Identity{Peer: n1})),
		"vote, absurd term":       second(storage.EncodeVote(raft.Vote{Term: storage.MaxIndex + 1})),
		"vote, long name":         second(storage.EncodeVote(raft.Vote{Term: 1, For: long})),
		"log id, half zero":       second(storage.EncodeLogID(raft.LogID{Term: 1})),
		"log id, absurd index":    second(storage.EncodeLogID(raft.LogID{Term: 1, Index: storage.MaxIndex + 1})),
	} {
		if err == nil {
			t.Errorf("%s: encoded", what)
		}
	}
}

func second(_ []byte, err error) error { return err }

func TestDecodersRefuse(t *testing.T) {
	peer := func(id string) *entrypb.Peer { return &entrypb.Peer{Id: id, Incarnation: 1} }
	for _, test := range []struct {
		name   string
		record interface{ MarshalVT() ([]byte, error) }
		decode func([]byte) error
		want   string
	}{
		{"membership without a format", &entrypb.Membership{Members: []*entrypb.Member{{Peer: peer("n1"), Voter: true}}}, membership, "no format"},
		{"membership of the future", &entrypb.Membership{Format: 2, Members: []*entrypb.Member{{Peer: peer("n1"), Voter: true}}}, membership, "format 2"},
		{"membership with no voter", &entrypb.Membership{Format: 1, Members: []*entrypb.Member{{Peer: peer("n1")}}}, membership, "no voter"},
		{"membership with nobody's vote", &entrypb.Membership{Format: 1, Members: []*entrypb.Member{{Voter: true}}}, membership, "node id"},
		{"setting of the future", &entrypb.Setting{Format: 2}, setting, "format 2"},
		{"setting that says more", appended{&entrypb.Setting{Format: 1}, protowire.AppendVarint(protowire.AppendTag(nil, 15, protowire.VarintType), 1)}, setting, "newer"},
		{"setting of an absurd lease", &entrypb.Setting{Format: 1, Lease: math.MaxInt64}, setting, "out of bounds"},
		{"genesis of the future", &entrypb.Genesis{Format: 2, Cluster: "c", MaxEntryBytes: 1, Members: []*entrypb.Peer{peer("n1")}}, genesis, "format 2"},
		{"genesis out of order", &entrypb.Genesis{Format: 1, Cluster: "c", MaxEntryBytes: 1, Members: []*entrypb.Peer{peer("n2"), peer("n1")}}, genesis, "order"},
		{"identity of the future", &entrypb.Identity{Format: 2, Cluster: "c", Peer: peer("n1")}, identity, "format 2"},
		{"identity of nobody", &entrypb.Identity{Format: 1, Cluster: "c"}, identity, "node id"},
		{"vote of the future", &entrypb.Vote{Format: 2, Term: 1}, vote, "format 2"},
		{"vote in an absurd term", &entrypb.Vote{Format: 1, Term: 1 << 63}, vote, "out of bounds"},
		{"log id of the future", &entrypb.LogID{Format: 2}, logID, "format 2"},
		{"log id half zero", &entrypb.LogID{Format: 1, Index: 4}, logID, "out of bounds"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, err := test.record.MarshalVT()
			if err != nil {
				t.Fatal(err)
			}
			sentinel, other := storage.ErrCorrupt, storage.ErrNewer
			if strings.Contains(test.name, "of the future") || strings.Contains(test.name, "says more") {
				sentinel, other = other, sentinel
			}
			if err := test.decode(b); !errors.Is(err, sentinel) || errors.Is(err, other) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q with %q", err, sentinel, test.want)
			}
		})
	}
}

// appended is a record with fields behind it.
type appended struct {
	*entrypb.Setting
	more []byte
}

func (a appended) MarshalVT() ([]byte, error) {
	b, err := a.Setting.MarshalVT()
	return append(b, a.more...), err
}

func membership(b []byte) error { _, err := storage.DecodeMembership(b); return err }
func setting(b []byte) error    { _, err := storage.DecodeSetting(b); return err }
func genesis(b []byte) error    { _, err := storage.DecodeGenesis(b); return err }
func identity(b []byte) error   { _, err := storage.DecodeIdentity(b); return err }
func vote(b []byte) error       { _, err := storage.DecodeVote(b); return err }
func logID(b []byte) error      { _, err := storage.DecodeLogID(b); return err }

func FuzzDecodeMembership(f *testing.F) {
	fuzzRecord(f, raft.NewMembership(raft.Peer{ID: "n1", Incarnation: 1}, raft.Peer{ID: "n2", Incarnation: 2}),
		storage.EncodeMembership, storage.DecodeMembership)
}

func FuzzDecodeSetting(f *testing.F) {
	fuzzRecord(f, &raft.Setting{Lease: time.Second}, storage.EncodeSetting, storage.DecodeSetting)
}

func FuzzDecodeGenesis(f *testing.F) {
	fuzzRecord(f, storage.NewGenesis("c", []raft.Peer{{ID: "n1", Incarnation: 1}, {ID: "n2", Incarnation: 2}}, 1<<20),
		storage.EncodeGenesis, storage.DecodeGenesis)
}

func FuzzDecodeIdentity(f *testing.F) {
	fuzzRecord(f, storage.Identity{Cluster: "c", Peer: raft.Peer{ID: "n1", Incarnation: 7}}, storage.EncodeIdentity, storage.DecodeIdentity)
}

func FuzzDecodeVote(f *testing.F) {
	fuzzRecord(f, raft.Vote{Term: 3, For: "n1"}, storage.EncodeVote, storage.DecodeVote)
}

func FuzzDecodeLogID(f *testing.F) {
	fuzzRecord(f, raft.LogID{Term: 3, Index: 9}, storage.EncodeLogID, storage.DecodeLogID)
}

// fuzzRecord says that a decoder refuses with ErrCorrupt, or with ErrNewer, or returns what survives another round trip.
func fuzzRecord[T any](f *testing.F, seed T, encode func(T) ([]byte, error), decode func([]byte) (T, error)) {
	b, err := encode(seed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte("0")) // a format that this version does not know
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decode(b)
		if err != nil {
			if errors.Is(err, storage.ErrCorrupt) == errors.Is(err, storage.ErrNewer) {
				t.Fatalf("neither ErrCorrupt nor ErrNewer, or both: %v", err)
			}
			return
		}
		again, err := encode(v)
		if err != nil {
			t.Fatalf("decoded, but cannot be encoded: %v", err)
		}
		if got, err := decode(again); err != nil || !reflect.DeepEqual(got, v) {
			t.Fatalf("decoded again: %+v, %v; want %+v", got, err, v)
		}
	})
}
