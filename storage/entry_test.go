package storage_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/entrypb"
)

// drawEntry draws an entry as a leader may make it, of any kind.
func drawEntry(t *rapid.T) raft.Entry {
	bounded := rapid.Uint64Range(0, storage.MaxIndex)
	e := raft.Entry{
		ID: raft.LogID{
			Term:  rapid.Uint64Range(1, storage.MaxIndex).Draw(t, "term"),
			Index: rapid.Uint64Range(1, storage.MaxIndex).Draw(t, "index"),
		},
		// Half of them of the kinds that are known: these have data of their own.
		Kind:     raft.EntryKind(rapid.OneOf(rapid.IntRange(1, 6), rapid.IntRange(1, 255)).Draw(t, "kind")),
		Time:     rapid.Int64Range(0, math.MaxInt64).Draw(t, "time"),
		Session:  bounded.Draw(t, "session"),
		Sequence: bounded.Draw(t, "sequence"),
		LowWater: bounded.Draw(t, "low water"),
	}
	switch e.Kind {
	case raft.EntryMembership:
		e.Membership = drawMembership(t)
	case raft.EntrySetting:
		e.Setting = drawSetting(t)
	default:
		e.Data = rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data")
	}
	return e
}

func seal(t interface {
	Helper()
	Fatal(...any)
}, e raft.Entry) raft.Entry {
	t.Helper()
	if err := storage.SealEntry(&e); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEntryRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawEntry(t)
		want := bytes.Clone(e.Data)
		sealed := seal(t, e)
		opened, err := storage.OpenEntry(sealed.Raw)
		if err != nil {
			t.Fatal(err)
		}
		sameEntry(t, opened, sealed)
		if e.Kind != raft.EntryMembership && e.Kind != raft.EntrySetting && !bytes.Equal(opened.Data, want) {
			t.Fatalf("data %x, want %x", opened.Data, want)
		}
	})
}

func sameEntry(t *rapid.T, got, want raft.Entry) {
	t.Helper()
	if got.ID != want.ID || got.Kind != want.Kind || got.Time != want.Time || got.Session != want.Session ||
		got.Sequence != want.Sequence || got.LowWater != want.LowWater || !bytes.Equal(got.Data, want.Data) ||
		!bytes.Equal(got.Raw, want.Raw) || got.Membership.String() != want.Membership.String() ||
		!reflect.DeepEqual(got.Setting, want.Setting) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
}

// TestEntryIsAPlainMessage holds the encoding by hand against the generated code, both ways.
func TestEntryIsAPlainMessage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := seal(t, drawEntry(t))
		var pb entrypb.Entry
		if err := proto.Unmarshal(e.Raw, &pb); err != nil {
			t.Fatal(err)
		}
		if pb.Term != e.ID.Term || pb.Index != e.ID.Index || pb.Kind != uint32(e.Kind) || pb.Time != e.Time || pb.Session != e.Session ||
			pb.Sequence != e.Sequence || pb.LowWater != e.LowWater || !bytes.Equal(pb.Data, e.Data) {
			t.Fatalf("the library reads %v, want %+v", &pb, e)
		}
		if len(pb.ProtoReflect().GetUnknown()) > 0 {
			t.Fatal("there are fields that the message does not declare")
		}
		again, err := pb.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, e.Raw) {
			t.Fatalf("the library writes %x, want %x", again, e.Raw)
		}
	})
}

func TestEntryBitFlipsAreDetected(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw := seal(t, drawEntry(t)).Raw
		bit := rapid.IntRange(0, len(raw)*8-1).Draw(t, "bit")
		flipped := bytes.Clone(raw)
		flipped[bit/8] ^= 1 << (bit % 8)
		if _, err := storage.OpenEntry(flipped); !errors.Is(err, storage.ErrCorrupt) {
			t.Fatalf("bit %d: %v", bit, err)
		}
	})
}

func TestEntryOfAnyOtherLengthIsDetected(t *testing.T) {
	raw := seal(t, raft.Entry{ID: raft.LogID{Term: 3, Index: 7}, Kind: raft.EntryCommand, Data: []byte("some command")}).Raw
	for n := range len(raw) {
		if _, err := storage.OpenEntry(raw[:n]); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("the first %d of %d bytes: %v", n, len(raw), err)
		}
	}
	if _, err := storage.OpenEntry(append(bytes.Clone(raw), 0)); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("one byte more: %v", err)
	}
}

// withChecksum ends a body as an entry ends, so that what is tested is not caught by the checksum.
func withChecksum(body []byte) []byte {
	sum := crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))
	return binary.LittleEndian.AppendUint32(append(bytes.Clone(body), 15<<3|5), sum)
}

func encode(t testing.TB, pb *entrypb.Entry) []byte {
	t.Helper()
	body, err := pb.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return withChecksum(body)
}

func TestOpenEntryRefuses(t *testing.T) {
	for _, test := range []struct {
		name string
		raw  []byte
		want string
	}{
		{"a format of the future without a log id", encode(t, &entrypb.Entry{Kind: 2, Format: 1}), "log id"},
		{"no term", encode(t, &entrypb.Entry{Index: 1, Kind: 2}), "log id"},
		{"no index", encode(t, &entrypb.Entry{Term: 1, Kind: 2}), "log id"},
		{"an absurd index", encode(t, &entrypb.Entry{Term: 1, Index: math.MaxUint64, Kind: 2}), "log id"},
		{"an absurd term", encode(t, &entrypb.Entry{Term: storage.MaxIndex + 1, Index: 1, Kind: 2}), "log id"},
		{"no kind", encode(t, &entrypb.Entry{Term: 1, Index: 1}), "kind"},
		{"a kind out of bounds", encode(t, &entrypb.Entry{Term: 1, Index: 1, Kind: 256 + 2}), "kind 258"},
		{"an absurd session", encode(t, &entrypb.Entry{Term: 1, Index: 1, Kind: 2, Session: math.MaxUint64}), "session"},
		{"an absurd sequence", encode(t, &entrypb.Entry{Term: 1, Index: 1, Kind: 2, Sequence: math.MaxUint64}), "sequence"},
		{"time before 1970", encode(t, &entrypb.Entry{Term: 1, Index: 1, Kind: 2, Time: -1}), "1970"},
		{"a membership that is none", encode(t, &entrypb.Entry{Term: 1, Index: 1, Kind: 3, Data: []byte{0xff}}), "membership"},
		{"a setting that is none", encode(t, &entrypb.Entry{Term: 1, Index: 1, Kind: 5, Data: []byte{0xff}}), "setting"},
		{"a setting without data", encode(t, &entrypb.Entry{Term: 1, Index: 1, Kind: 5}), "setting"},
		{"a membership without data", encode(t, &entrypb.Entry{Term: 1, Index: 1, Kind: 3}), "membership"},
		{"a term of another wire type", withChecksum([]byte{1<<3 | 1, 0, 0, 0, 0, 0, 0, 0, 0}), "wire type"},
		{"data as a number", withChecksum([]byte{8 << 3, 1}), "wire type"},
		{"a second checksum", withChecksum(withChecksum(nil)), "field 15"},
		{"data longer than the entry", withChecksum([]byte{8<<3 | 2, 200, 1}), "EOF"},
		{"a field that ends early", withChecksum([]byte{1 << 3, 0x80}), "EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := storage.OpenEntry(test.raw)
			if !errors.Is(err, storage.ErrCorrupt) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want ErrCorrupt with %q", err, test.want)
			}
		})
	}
}

// What a newer version wrote is intact: it is opened as an entry that no version before that one understands.
func TestOpenEntryKnowsWhatIsOfANewerVersion(t *testing.T) {
	for name, pb := range map[string]*entrypb.Entry{
		"an entry's format":   {Term: 1, Index: 7, Kind: 2, Format: 1, Data: []byte("x")},
		"a membership's":      {Term: 1, Index: 7, Kind: 3, Data: marshal(t, &entrypb.Membership{Format: 2})},
		"a setting's":         {Term: 1, Index: 7, Kind: 5, Data: marshal(t, &entrypb.Setting{Format: 2})},
		"a setting's content": {Term: 1, Index: 7, Kind: 5, Data: append(marshal(t, &entrypb.Setting{Format: 1}), 15<<3, 1)},
	} {
		e, err := storage.OpenEntry(encode(t, pb))
		if err != nil || e.Kind != raft.EntryUnknown || e.ID != (raft.LogID{Term: 1, Index: 7}) {
			t.Errorf("%s: %v, %v", name, e, err)
		}
		if why := (raft.Versions{Protocol: 9, Command: 9}).Unknown(&e); !strings.Contains(why, e.ID.String()) {
			t.Errorf("%s: %q", name, why)
		}
	}
}

func marshal(t testing.TB, m interface{ MarshalVT() ([]byte, error) }) []byte {
	t.Helper()
	b, err := m.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenEntryPassesOnWhatItDoesNotKnow(t *testing.T) {
	t.Run("a kind", func(t *testing.T) {
		e, err := storage.OpenEntry(encode(t, &entrypb.Entry{Term: 1, Index: 1, Kind: 200, Data: []byte("x")}))
		if err != nil || e.Kind != 200 || string(e.Data) != "x" {
			t.Errorf("%+v, %v", e, err)
		}
	})
	t.Run("a field", func(t *testing.T) {
		body, err := (&entrypb.Entry{Term: 4, Index: 9, Kind: 2}).MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		e, err := storage.OpenEntry(withChecksum(append(body, 14<<3|2, 3, 'n', 'e', 'w')))
		if want := (raft.LogID{Term: 4, Index: 9}); err != nil || e.ID != want {
			t.Errorf("%+v, %v", e, err)
		}
	})
}

// What the leader seals, everyone must be able to open, or the log would stop there for good.
func TestSealEntryRefusesWhatOpenEntryWould(t *testing.T) {
	ok := raft.Entry{ID: raft.LogID{Term: 1, Index: 1}, Kind: raft.EntryCommand, Data: []byte("x")}
	for name, change := range map[string]func(*raft.Entry){
		"no log id":        func(e *raft.Entry) { e.ID = raft.LogID{} },
		"absurd index":     func(e *raft.Entry) { e.ID.Index = storage.MaxIndex + 1 },
		"no kind":          func(e *raft.Entry) { e.Kind = 0 },
		"absurd sequence":  func(e *raft.Entry) { e.Sequence = math.MaxUint64 },
		"absurd low water": func(e *raft.Entry) { e.LowWater = math.MaxUint64 },
		"no membership":    func(e *raft.Entry) { e.Kind = raft.EntryMembership },
		"no setting":       func(e *raft.Entry) { e.Kind = raft.EntrySetting },
		"bad setting":      func(e *raft.Entry) { e.Kind, e.Setting = raft.EntrySetting, &raft.Setting{Lease: -1} },
		"bad membership":   func(e *raft.Entry) { e.Kind, e.Membership = raft.EntryMembership, &raft.Membership{} },
	} {
		t.Run(name, func(t *testing.T) {
			e := ok
			change(&e)
			if err := storage.SealEntry(&e); err == nil {
				t.Error("sealed")
			}
			if e.Raw != nil || string(e.Data) != "x" {
				t.Error("the entry was changed")
			}
		})
	}
}

func TestSealAndOpenAllocateLittle(t *testing.T) {
	e := raft.Entry{ID: raft.LogID{Term: 5, Index: 1e9}, Kind: raft.EntryCommand, Time: 1.7e18, Session: 1e6, Sequence: 1e6, Data: make([]byte, 256)}
	payload := e.Data
	if n := testing.AllocsPerRun(100, func() {
		e.Data = payload
		if err := storage.SealEntry(&e); err != nil {
			t.Fatal(err)
		}
	}); n != 1 {
		t.Errorf("SealEntry allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := storage.OpenEntry(e.Raw); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("OpenEntry allocates %v times", n)
	}
}

func FuzzOpenEntry(f *testing.F) {
	for _, e := range []raft.Entry{
		{ID: raft.LogID{Term: 1, Index: 1}, Kind: raft.EntryBlank},
		{ID: raft.LogID{Term: 7, Index: 12345}, Kind: raft.EntryCommand, Time: 1.7e18, Session: 3, Sequence: 4, LowWater: 2, Data: []byte("put x")},
		{ID: raft.LogID{Term: 2, Index: 2}, Kind: raft.EntryMembership, Membership: raft.NewMembership(raft.Peer{ID: "n1", Incarnation: 9})},
		{ID: raft.LogID{Term: 2, Index: 3}, Kind: raft.EntrySetting, Setting: &raft.Setting{Lease: time.Second}},
		{ID: raft.LogID{Term: 2, Index: 4}, Kind: raft.EntrySetting, Setting: &raft.Setting{}},
	} {
		if err := storage.SealEntry(&e); err != nil {
			f.Fatal(err)
		}
		f.Add(e.Raw, false)
		f.Add(e.Raw[:len(e.Raw)-5], true)
	}
	f.Fuzz(func(t *testing.T, raw []byte, seal bool) {
		if seal { // or the fuzzer would have to find checksums
			raw = withChecksum(raw)
		}
		before := bytes.Clone(raw)
		e, err := storage.OpenEntry(raw)
		if !bytes.Equal(raw, before) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			if !errors.Is(err, storage.ErrCorrupt) {
				t.Fatalf("not ErrCorrupt: %v", err)
			}
			return
		}
		again := e
		if err := storage.SealEntry(&again); err != nil {
			t.Fatalf("opened, but cannot be sealed: %v", err)
		}
		opened, err := storage.OpenEntry(again.Raw)
		if err != nil || opened.ID != e.ID || opened.Kind != e.Kind || opened.Sequence != e.Sequence || !reflect.DeepEqual(opened.Setting, e.Setting) {
			t.Fatalf("opened again: %+v, %v; want %+v", opened, err, e)
		}
	})
}

func BenchmarkSealEntry(b *testing.B) {
	e := raft.Entry{ID: raft.LogID{Term: 5, Index: 1e9}, Kind: raft.EntryCommand, Time: 1.7e18, Session: 1e6, Sequence: 1e6, Data: make([]byte, 256)}
	b.ReportAllocs()
	for b.Loop() {
		if err := storage.SealEntry(&e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenEntry(b *testing.B) {
	e := raft.Entry{ID: raft.LogID{Term: 5, Index: 1e9}, Kind: raft.EntryCommand, Time: 1.7e18, Session: 1e6, Sequence: 1e6, Data: make([]byte, 256)}
	if err := storage.SealEntry(&e); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := storage.OpenEntry(e.Raw); err != nil {
			b.Fatal(err)
		}
	}
}
