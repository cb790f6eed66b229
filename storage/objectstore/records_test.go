package objectstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"quorate/node/raft"
	"quorate/storage"
	pb "quorate/storage/objectstore/objectstorepb"
)

// manyRecords are too large for a manifest, and one of them alone for a part. All differ with the seed.
func manyRecords(seed uint64) []storage.SystemRecord {
	records := []storage.SystemRecord{{Key: "empty"}, {Key: "large", Value: randomBytes(seed, 1<<20+1)}}
	for i := range uint64(20) {
		records = append(records, storage.SystemRecord{Key: fmt.Sprint("result/", i), Value: randomBytes(100*seed+i, 10<<10)})
	}
	return records
}

// recordParts cut the records into several.
var recordParts = PartSizes{Min: 64 << 10, Average: 128 << 10, Max: 256 << 10}

func uploadRecords(t testing.TB, blobs Blobs, index uint64, records []storage.SystemRecord) (storage.SnapshotRef, Stats) {
	t.Helper()
	u, err := Begin(t.Context(), blobs, clusterA, UploadOptions{Sizes: recordParts})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Abort()
	writeLayer(t, u, raft.LogID{}, randomBytes(index, 300<<10))
	meta := testMeta(index)
	meta.System = records
	ref, stats, err := u.Commit(t.Context(), meta)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range openSnapshot(t, blobs, ref).Records {
		if !u.Holds(p.Digest) {
			t.Fatal("a part of the records would be swept while the snapshot is built")
		}
	}
	return ref, stats
}

// wantRecords checks that a store has a whole snapshot with these records.
func wantRecords(t testing.TB, blobs Blobs, ref storage.SnapshotRef, want []storage.SystemRecord) {
	t.Helper()
	if err := Verify(t.Context(), blobs, ref, once); err != nil {
		t.Fatal(err)
	}
	meta := testMeta(ref.Last.Index)
	meta.System = want
	if got, err := ReadMeta(t.Context(), blobs, openSnapshot(t, blobs, ref), once); err != nil || !reflect.DeepEqual(got, meta) {
		t.Fatalf("%d records, want %d; %v", len(got.System), len(want), err)
	}
	if got := readSnapshot(t, blobs, ref); !bytes.Equal(got, randomBytes(ref.Last.Index, 300<<10)) {
		t.Fatalf("the state has %d bytes", len(got))
	}
}

// TestRecordsGoWhereTheirSnapshotGoes: be they few and in the manifest, or many and in parts of their own.
func TestRecordsGoWhereTheirSnapshotGoes(t *testing.T) {
	for name, c := range map[string]struct {
		records []storage.SystemRecord
		parts   bool
		format  uint32
	}{
		"few":  {testMeta(1).System, false, 1},
		"many": {manyRecords(1), true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			blobs := newTestBucket(t, startServer(t, true).connect(), clusterA, BucketOptions{ChunkBytes: 64 << 10})
			ref, stats := uploadRecords(t, blobs, 10, c.records)
			var encoded pb.Manifest
			if err := encoded.UnmarshalVT(mustGet(t, blobs, ref.Name)); err != nil || encoded.Format != c.format {
				t.Errorf("format %d, %v", encoded.Format, err) // an older version refuses what is newer, and reads the rest
			}
			m := openSnapshot(t, blobs, ref)
			if c.parts != (len(m.Records) > 1) || stats.PartsSent != len(m.Unique()) || stats.Raw != m.Bytes() || ref.Bytes != m.Bytes() {
				t.Errorf("%d parts of records, %+v", len(m.Records), stats)
			}
			wantRecords(t, blobs, ref, c.records)
			fetched := newTestDirectory()
			if err := Fetch(t.Context(), blobs, fetched, ref, FetchOptions{Retry: once}); err != nil {
				t.Fatal(err)
			}
			wantRecords(t, fetched, ref, c.records)
			backup, err := openBackup(t, saved(t, fetched, ref))
			if err != nil {
				t.Fatal(err)
			}
			wantRecords(t, backup, ref, c.records)
		})
	}
}

// Manifests of earlier versions have all records, however many.
func TestManyRecordsInAManifestAreStillRead(t *testing.T) {
	d := newTestDirectory()
	ref, _ := uploadRecords(t, d, 10, testMeta(10).System)
	m := openSnapshot(t, d, ref)
	m.Meta.System = manyRecords(1)
	encoded, err := EncodeManifest(m)
	if err != nil {
		t.Fatal(err)
	}
	ref = m.reference(encoded)
	put(t, d, ref.Name, encoded)
	wantRecords(t, d, ref, manyRecords(1))
}

func TestPartsOfRecordsAreSentOnceAndSweptWithTheirSnapshot(t *testing.T) {
	d := newTestDirectory()
	old, _ := uploadRecords(t, d, 10, manyRecords(1))
	other, _ := uploadRecords(t, d, 20, manyRecords(2))
	again, stats := uploadRecords(t, d, 30, manyRecords(2))
	if same := openSnapshot(t, d, again).Records; stats.PartsReused != len(same) || !slices.Equal(same, openSnapshot(t, d, other).Records) {
		t.Errorf("%+v, %d parts of records", stats, len(same))
	}
	gone := openSnapshot(t, d, old).Records
	if _, err := Sweep(t.Context(), d, only(again), nil, 0); err != nil {
		t.Fatal(err)
	}
	wantRecords(t, d, again, manyRecords(2))
	for _, p := range gone {
		if names(t, d)[p.Name()] {
			t.Errorf("%s stays", p.Name())
		}
	}
}

func TestDamagedRecordsAreFound(t *testing.T) {
	d := newTestDirectory()
	ref, _ := uploadRecords(t, d, 10, manyRecords(1))
	m := openSnapshot(t, d, ref)
	bad := m.Records[1].Name()
	whole := mustGet(t, d, bad)
	for what, damage := range map[string]func(){
		"changed": func() { put(t, d, bad, flipped(whole)) },
		"cut":     func() { put(t, d, bad, whole[:len(whole)/2]) },
		"lost":    func() { _ = d.Delete(t.Context(), bad) },
	} {
		t.Run(what, func(t *testing.T) {
			damage()
			_, err := ReadMeta(t.Context(), d, m, once)
			wantDamage(t, err, bad)
			wantDamage(t, Verify(t.Context(), d, ref, once), bad)
			wantDamage(t, Fetch(t.Context(), d, newTestDirectory(), ref, FetchOptions{Retry: once}), bad)
			wantDamage(t, Save(t.Context(), d, ref, io.Discard, SaveOptions{Retry: once}), bad)
		})
	}
	put(t, d, bad, whole)
	// Parts that are right, and are no records.
	other, _ := upload(t, d, 20, append(encodedRecords(t, nil), "and something else"...))
	m.Records = openSnapshot(t, d, other).Layers[0].Parts
	_, err := ReadMeta(t.Context(), d, m, once)
	wantDamage(t, err, m.Records[0].Name())
}

func encodedRecords(t testing.TB, records []storage.SystemRecord) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := encodeRecords(&b, records); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRecordsAreChecked(t *testing.T) {
	good := encodedRecords(t, manyRecords(1)[2:])
	if got, err := decodeRecords(bytes.NewReader(good)); err != nil || !reflect.DeepEqual(got, manyRecords(1)[2:]) {
		t.Fatalf("%d records, %v", len(got), err)
	}
	lie := func(key string, length uint64) []byte {
		b := append([]byte{recordsFormat}, byte(len(key)))
		return binary.AppendUvarint(append(b, key...), length)
	}
	for name, b := range map[string][]byte{
		"nothing":          nil,
		"no format":        {0, 0},
		"no end":           good[:len(good)-1],
		"more":             append(slices.Clone(good), 0),
		"a long key":       binary.AppendUvarint([]byte{recordsFormat}, maxSystemKey+1),
		"an absurd value":  append(lie("k", math.MaxUint64), "v"...),
		"an absurd number": append([]byte{recordsFormat}, bytes.Repeat([]byte{0xff}, 11)...),
	} {
		if _, err := decodeRecords(bytes.NewReader(b)); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := decodeRecords(bytes.NewReader([]byte{recordsFormat + 1, 0})); !errors.Is(err, storage.ErrNewer) || errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("a newer format: %v", err)
	}
	for _, key := range []string{"", strings.Repeat("k", maxSystemKey+1)} {
		if err := encodeRecords(io.Discard, []storage.SystemRecord{{Key: key}}); err == nil {
			t.Errorf("a key of %d bytes was written", len(key))
		}
	}
}

func FuzzDecodeRecords(f *testing.F) {
	whole := encodedRecords(f, []storage.SystemRecord{{Key: "session/1", Value: []byte("open")}, {Key: "empty"}})
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(encodedRecords(f, nil))
	f.Add([]byte{recordsFormat + 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := decodeRecords(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, storage.ErrCorrupt) && !errors.Is(err, storage.ErrNewer) {
				t.Fatalf("neither ErrCorrupt nor ErrNewer: %v", err)
			}
			return
		}
		again, err := decodeRecords(bytes.NewReader(encodedRecords(t, records)))
		if err != nil || !reflect.DeepEqual(again, records) {
			t.Fatalf("%v, want %v; %v", again, records, err)
		}
	})
}
