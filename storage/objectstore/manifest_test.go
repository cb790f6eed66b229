package objectstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"quorate/node/raft"
	"quorate/storage"
	pb "quorate/storage/objectstore/objectstorepb"
)

func testManifest() *Manifest {
	p := []Part{{Digest: Digest{1}, Raw: 10, Stored: 5, Content: 9}, {Digest: Digest{2}, Raw: 7, Stored: 8}}
	return &Manifest{
		Cluster: clusterA, Meta: testMeta(20), MaxEntryBytes: 1 << 20,
		Layers: []Layer{
			{Upto: raft.LogID{Term: 2, Index: 10}, Raw: 27, Parts: []Part{p[0], p[1], p[0]}},
			{Since: raft.LogID{Term: 2, Index: 10}, Upto: raft.LogID{Term: 3, Index: 20}, Raw: 7, Parts: p[1:]},
		},
	}
}

// withRecords has the records in parts.
func withRecords(m *Manifest) *Manifest {
	m.Meta.System, m.Records = nil, []Part{{Digest: Digest{3}, Raw: 6, Stored: 4, Content: 1}}
	return m
}

func TestManifestRoundTrip(t *testing.T) {
	m := testManifest()
	for _, limit := range []uint64{math.MaxInt32, 0} { // older versions wrote none
		m.MaxEntryBytes = limit
		encoded, err := EncodeManifest(m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeManifest(encoded)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Fatalf("got %+v, %v", got, err)
		}
	}
	if m.Bytes() != 34 || len(m.Unique()) != 2 {
		t.Fatalf("%d bytes, %d parts", m.Bytes(), len(m.Unique()))
	}
	m = withRecords(m)
	encoded, err := EncodeManifest(m)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeManifest(encoded); err != nil || !reflect.DeepEqual(got, m) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if m.Bytes() != 40 || len(m.Unique()) != 3 {
		t.Fatalf("%d bytes, %d parts", m.Bytes(), len(m.Unique()))
	}
	var old pb.Manifest
	if err := old.UnmarshalVT(encoded); err != nil {
		t.Fatal(err)
	}
	old.Format = inlineFormat // whoever reads this format would miss the records
	if encoded, err = old.MarshalVT(); err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeManifest(encoded); !errors.Is(err, storage.ErrCorrupt) {
		t.Fatalf("parts of records in an older format: %v", err)
	}
}

func TestManifestIsChecked(t *testing.T) {
	for name, change := range map[string]func(*Manifest){
		"no last":          func(m *Manifest) { m.Meta.Last = raft.LogID{} },
		"no membership":    func(m *Manifest) { m.Meta.Membership = nil },
		"later membership": func(m *Manifest) { m.Meta.MembershipID.Index = 21 },
		"no layer":         func(m *Manifest) { m.Layers = nil },
		"a gap":            func(m *Manifest) { m.Layers[1].Since.Index = 11 },
		"backwards":        func(m *Manifest) { m.Layers[0].Upto = raft.LogID{} },
		"first is partial": func(m *Manifest) { m.Layers = m.Layers[1:] },
		"short":            func(m *Manifest) { m.Layers = m.Layers[:1] },
		"wrong sum":        func(m *Manifest) { m.Layers[0].Raw++ },
		"empty part":       func(m *Manifest) { m.Layers[0].Parts[0].Raw = 0 },
		"huge part":        func(m *Manifest) { m.Layers[0].Parts[0].Stored = 1 << 40 },
		"two descriptions": func(m *Manifest) { m.Layers[0].Parts[2].Content++ },
		"huge entries":     func(m *Manifest) { m.MaxEntryBytes = math.MaxInt32 + 1 },
		"nameless record":  func(m *Manifest) { m.Meta.System[0].Key = "" },
		"tiny record":      func(m *Manifest) { m.Meta.System[0].Key = "abc" },
		"records twice":    func(m *Manifest) { m.Records = m.Layers[1].Parts },
		"no records in it": func(m *Manifest) { withRecords(m).Records[0].Raw = 0 },
		"endless records": func(m *Manifest) { // that cost whoever made them one small part
			withRecords(m).Records = slices.Repeat([]Part{{Digest: Digest{3}, Raw: maxPartRaw, Stored: 3 << 10}}, 100_000)
		},
		"records differ": func(m *Manifest) { withRecords(m).Records[0].Digest = Digest{1} },
	} {
		m := testManifest()
		change(m)
		if _, err := EncodeManifest(m); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzDecodeManifest(f *testing.F) {
	encoded, err := EncodeManifest(testManifest())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoded)
	f.Add(binary.AppendUvarint(append(slices.Clone(encoded), 8<<3), math.MaxUint64)) // the last max_entry_bytes counts
	older := testManifest()
	older.MaxEntryBytes = 0
	if encoded, err := EncodeManifest(older); err == nil {
		f.Add(encoded)
	}
	if encoded, err := EncodeManifest(withRecords(testManifest())); err == nil {
		f.Add(encoded)
	}
	f.Add(encoded[:len(encoded)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeManifest(b)
		if err != nil {
			if !errors.Is(err, storage.ErrCorrupt) && !errors.Is(err, storage.ErrNewer) {
				t.Fatalf("neither ErrCorrupt nor ErrNewer: %v", err)
			}
			return
		}
		again, err := EncodeManifest(m)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		same, err := DecodeManifest(again)
		if err != nil {
			t.Fatal(err)
		}
		if third, err := EncodeManifest(same); err != nil || !bytes.Equal(third, again) {
			t.Fatalf("not the same bytes again: %v", err)
		}
	})
}

// A manifest is decoded before it is known to be anybody's: whoever lists a store decodes what has its digest in its name.
func TestAHostileManifestCostsLittleMemory(t *testing.T) {
	field := func(number protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
	}
	const size = 4 << 20
	many := func(one []byte) []byte { return bytes.Repeat(one, size/len(one)) }
	format := []byte{wireFormat << 3, manifestFormat}
	for name, hostile := range map[string][]byte{
		"empty parts":      field(wireLayers, many(field(wireParts, nil))),
		"shortest parts":   field(wireLayers, many(field(wireParts, field(1, make([]byte, sha256.Size))))),
		"empty layers":     many(field(wireLayers, nil)),
		"empty records":    many(field(wireSystem, nil)),
		"shortest records": many(field(wireSystem, field(1, []byte("abcd")))),
		"empty members":    field(wireMembership, many(field(2, nil))),
	} {
		body := append(bytes.Clone(format), hostile...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := DecodeManifest(body)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if n := (after.TotalAlloc - before.TotalAlloc) / uint64(len(body)); n > 20 {
			t.Errorf("%s: %d bytes take %d times as much memory", name, len(body), n)
		} else {
			t.Logf("%s: %d times, %v", name, n, err)
		}
	}
}

// A manifest of a newer version, which is the newest one, is not passed over as if it were damaged.
func TestManifestOfANewerVersionIsNotDamaged(t *testing.T) {
	d := newTestDirectory()
	upload(t, d, 10, randomBytes(1, 40<<10))
	ref, _ := upload(t, d, 20, randomBytes(2, 40<<10))
	m := openSnapshot(t, d, ref)
	var newer pb.Manifest
	if err := newer.UnmarshalVT(mustGet(t, d, ref.Name)); err != nil {
		t.Fatal(err)
	}
	newer.Format = manifestFormat + 1
	encoded, err := newer.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Delete(t.Context(), ref.Name); err != nil {
		t.Fatal(err)
	}
	ref = m.reference(encoded)
	put(t, d, ref.Name, encoded)
	for what, do := range map[string]func(ctx context.Context) error{
		"list":   func(ctx context.Context) error { _, _, err := List(ctx, d); return err },
		"newest": func(ctx context.Context) error { _, err := Newest(ctx, d); return err },
		"open":   func(ctx context.Context) error { _, err := Open(ctx, d, ref); return err },
		"verify": func(ctx context.Context) error { return Verify(ctx, d, ref, once) },
		"fetch": func(ctx context.Context) error {
			return Fetch(ctx, d, newTestDirectory(), ref, FetchOptions{Retry: once})
		},
		"save": func(ctx context.Context) error { return Save(ctx, d, ref, io.Discard, SaveOptions{Retry: once}) },
	} {
		err := do(t.Context())
		var damaged *DamagedError
		if !errors.Is(err, storage.ErrNewer) || errors.Is(err, storage.ErrCorrupt) || errors.As(err, &damaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
