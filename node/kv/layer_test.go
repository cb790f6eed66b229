package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/storagetest"
)

// newReader gives a stream a few bytes at a time, as a network does.
func newReader(b []byte) io.Reader { return &slowReader{b: b} }

type slowReader struct{ b []byte }

func (r *slowReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 1000)], r.b)
	r.b = r.b[n:]
	return n, nil
}

// writeDelta returns what changed after an index, as a layer.
func writeDelta(s *Store, since uint64) ([]byte, error) {
	view, err := s.Snapshot()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = view.(node.DeltaSnapshot).WriteDeltaTo(context.Background(), raft.LogID{Term: 1, Index: since}, &b)
	return b.Bytes(), errors.Join(err, view.Close())
}

func deltaOf(t testing.TB, s *Store, since uint64) []byte {
	t.Helper()
	b, err := writeDelta(s, since)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func restoreInto(s *Store, last uint64, layers ...[]byte) error {
	meta := node.SnapshotMeta{Last: raft.LogID{Term: 1, Index: last}}
	if last == 0 {
		meta.Last = raft.LogID{}
	}
	return s.Restore(context.Background(), meta, newReader(bytes.Join(layers, nil)))
}

// TestLayersAgainstModel takes whole snapshots and differences of stores that also lose history, get flushed and compacted, and restores
// them: all that can be read is the model's. Layers of a chain come from either of two replicas, which sweep at their own times.
func TestLayersAgainstModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		history := rapid.SampledFrom([]uint64{3, 10, 1000}).Draw(t, "history")
		replicas := []*Store{openWithHistory(t, vfs.NewMem(), history), openWithHistory(t, vfs.NewMem(), history)}
		defer replicas[0].Close()
		defer replicas[1].Close()
		m, index, k := model{}, uint64(0), kept{revisions: history}
		var layers [][]byte
		var upto uint64
		snapshot := func(s *Store) {
			if len(layers) > 0 && rapid.IntRange(0, 4).Draw(t, "whole") > 0 {
				layer, err := writeDelta(s, upto)
				if err == nil {
					layers, upto = append(layers, layer), index
					return
				}
				if !errors.Is(err, node.ErrNoDelta) || len(layer) > 0 || upto >= s.history.floor.Load() {
					t.Fatalf("difference since %d: %v, with %d bytes written", upto, err, len(layer))
				}
			}
			view, err := s.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := errors.Join(view.WriteTo(context.Background(), &b), view.Close()); err != nil {
				t.Fatal(err)
			}
			layers, upto = [][]byte{b.Bytes()}, index
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			s := replicas[rapid.IntRange(0, 1).Draw(t, "replica")]
			switch rapid.IntRange(0, 12).Draw(t, "what") {
			case 0:
				if err := s.Sync(context.Background()); err != nil {
					t.Fatal(err)
				}
			case 1:
				if err := errors.Join(s.Sync(context.Background()), s.db.Compact(context.Background(), []byte{0}, []byte{0xff}, false)); err != nil {
					t.Fatal(err)
				}
			case 2:
				waitSwept(t, s)
			case 3, 4:
				snapshot(s)
			case 5:
				index++
				k.changeHistory(t, index, rapid.SampledFrom([]uint64{3, 10, 1000}).Draw(t, "setting"), replicas...)
			default:
				index++
				ops := drawOps(t, index)
				for _, s := range replicas {
					if _, err := s.Apply(put(t, index, ops...)); err != nil {
						t.Fatal(err)
					}
				}
				m.apply(index, ops)
			}
		}
		snapshot(replicas[0])
		restored := openWithHistory(t, vfs.NewMem(), history)
		defer restored.Close()
		restored.tableBytes = rapid.IntRange(1, 200).Draw(t, "bytes of a table")
		if err := restoreInto(restored, index, layers...); err != nil {
			t.Fatal(err)
		}
		checkHistory(t, restored, m, k)
		waitSwept(t, restored)
		checkHistory(t, restored, m, k)
		for range 3 {
			index++
			applyDrawn(t, restored, m, index)
		}
		checkHistory(t, restored, m, k)
		snapshot(restored) // its tables were made by the installation
		another := openWithHistory(t, vfs.NewMem(), history)
		defer another.Close()
		if err := restoreInto(another, index, layers...); err != nil {
			t.Fatal(err)
		}
		checkHistory(t, another, m, k)
	})
}

// TestADeletionIsInTheDifferenceOrThereIsNone: once a tombstone is removed, no difference may be made that should hold it.
func TestADeletionIsInTheDifferenceOrThereIsNone(t *testing.T) {
	s := openWithHistory(t, vfs.NewMem(), 10)
	defer s.Close()
	apply := func(index uint64, o op) {
		t.Helper()
		if _, err := s.Apply(put(t, index, o)); err != nil {
			t.Fatal(err)
		}
	}
	apply(1, op{put: true, key: "doomed", value: "x"})
	whole := snapshotOf(t, s)
	apply(2, op{key: "doomed"})
	restored := func(last uint64, layers ...[]byte) error {
		other := openWithHistory(t, vfs.NewMem(), 10)
		defer other.Close()
		if err := restoreInto(other, last, layers...); err != nil {
			t.Fatal(err)
		}
		_, err := other.Get("doomed", 0)
		return err
	}
	if err := restored(1, whole); err != nil {
		t.Fatalf("before the deletion: %v", err)
	}
	if err := restored(2, whole, deltaOf(t, s, 1)); !errors.Is(err, ErrNotFound) {
		t.Fatalf("with the tombstone there: %v", err)
	}
	fillStore(t, s, 3, 11)
	waitSwept(t, s) // the floor is 1: the base is just not too old
	if err := restored(11, whole, deltaOf(t, s, 1)); !errors.Is(err, ErrNotFound) {
		t.Fatalf("with the floor at the base: %v", err)
	}
	fillStore(t, s, 12, 40)
	waitSwept(t, s)
	if it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: appendKey(nil, []byte("doomed")), UpperBound: versionsEnd([]byte("doomed"))}); err != nil || it.First() {
		t.Fatalf("the tombstone is still there (%v)", err)
	} else if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	for since := uint64(1); since < 30; since++ {
		if layer, err := writeDelta(s, since); !errors.Is(err, node.ErrNoDelta) || len(layer) > 0 {
			t.Fatalf("a difference since %d, below the floor of 30: %v, %d bytes", since, err, len(layer))
		}
	}
	deltaOf(t, s, 30)
	if _, err := writeDelta(s, 41); !errors.Is(err, node.ErrNoDelta) {
		t.Fatalf("a difference since what is not applied: %v", err)
	}
}

// TestASmallDifferenceIsSmallAndReadsLittle changes 1 % of the keys.
func TestASmallDifferenceIsSmallAndReadsLittle(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer s.Close()
	random := rand.New(rand.NewPCG(1, 2))
	const keys, perCommand = 20_000, 50
	index := uint64(0)
	write := func(n int, key func(int) int) {
		for i := 0; i < n; i += perCommand {
			var ops []op
			for j := range perCommand {
				value := make([]byte, 150)
				for k := range value {
					value[k] = byte(random.Uint32())
				}
				ops = append(ops, op{put: true, key: fmt.Sprintf("key%08d", key(i+j)), value: string(value)})
			}
			index++
			if _, err := s.Apply(put(t, index, ops...)); err != nil {
				t.Fatal(err)
			}
		}
	}
	settle := func() {
		if err := errors.Join(s.Sync(t.Context()), s.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false)); err != nil {
			t.Fatal(err)
		}
	}
	// blocks returns how many blocks f reads, from the cache or not.
	blocks := func(f func() []byte) (written int, read int64) {
		before := s.db.Metrics().BlockCache
		written = len(f())
		after := s.db.Metrics().BlockCache
		return written, after.Hits + after.Misses - before.Hits - before.Misses
	}
	check := func(when string, since uint64, mostRead float64) {
		t.Helper()
		whole, all := blocks(func() []byte { return snapshotOf(t, s) })
		delta, some := blocks(func() []byte { return deltaOf(t, s, since) })
		t.Logf("%s: difference %d of %d bytes; reads %d of %d blocks", when, delta, whole, some, all)
		if float64(delta) > 0.012*float64(whole) {
			t.Errorf("%s: the difference has %d bytes, the whole %d", when, delta, whole)
		}
		if float64(some) > mostRead*float64(all) {
			t.Errorf("%s: the difference reads %d blocks of %d", when, some, all)
		}
	}
	write(keys, func(i int) int { return i })
	settle()
	since := index
	changed := random.Perm(keys)
	write(keys/100, func(i int) int { return changed[i] })
	check("unflushed", since, 0.01)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("flushed", since, 0.03)
	settle()
	check("compacted: a change in one of five blocks", since, 0.30)
}

func TestChainsOfLayersThatDoNotFitAreRefused(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer s.Close()
	fillStore(t, s, 1, 10)
	whole := snapshotOf(t, s)
	fillStore(t, s, 11, 20)
	first := deltaOf(t, s, 10)
	wholeAt20 := snapshotOf(t, s)
	fillStore(t, s, 21, 30)
	second, overlapping := deltaOf(t, s, 20), deltaOf(t, s, 15)
	want, _, err := s.Range(RangeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for what, layers := range map[string][][]byte{
		"in order": {whole, first, second}, "overlapping": {whole, first, overlapping}, "from 20": {wholeAt20, second}, "nothing new": {whole, first, second, deltaOf(t, s, 30)},
	} {
		other := openStore(t, vfs.NewMem())
		if err := restoreInto(other, 30, layers...); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got, _, err := other.Range(RangeOptions{}); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: restored %v, want %v (%v)", what, got, want, err)
		}
		other.Close()
	}
	header := func(h layerHeader) []byte {
		var b bytes.Buffer
		o, err := newLayerWriter(&b, h)
		if err := errors.Join(err, o.end()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	other := openStore(t, vfs.NewMem())
	defer other.Close()
	all := historySetting{revisions: math.MaxUint64}
	for what, c := range map[string]struct {
		layers [][]byte
		last   uint64
		text   string
	}{
		"nothing":              {nil, 30, "cut short"},
		"no whole state":       {[][]byte{first, second}, 30, "the first layer is a difference"},
		"a layer missing":      {[][]byte{whole, second}, 30, "a layer is missing"},
		"out of order":         {[][]byte{whole, second, first}, 30, "a layer is missing"},
		"back":                 {[][]byte{whole, first, second, first}, 30, "up to 20 follows one up to 30"},
		"two whole states":     {[][]byte{whole, wholeAt20}, 30, "a whole state follows"},
		"beyond the snapshot":  {[][]byte{whole, first, second}, 29, "in a snapshot up to"},
		"garbage behind":       {[][]byte{whole, []byte("and so on, for some more bytes than a magic line has")}, 30, "is none"},
		"half a layer behind":  {[][]byte{whole, first[:len(first)-1]}, 30, "cut short"},
		"format 2":             {[][]byte{[]byte("quorate kv snapshot 2\n and so on")}, 30, `format "2"`},
		"unknown kind":         {[][]byte{header(layerHeader{kind: 3, upto: 10, setting: all})}, 30, "kind 3"},
		"whole with since":     {[][]byte{header(layerHeader{kind: layerWhole, since: 3, upto: 10, setting: all})}, 30, "begins after index 3"},
		"floor beyond upto":    {[][]byte{header(layerHeader{kind: layerWhole, upto: 10, floor: 11, setting: all})}, 30, "floor 11"},
		"difference with gaps": {[][]byte{whole, header(layerHeader{kind: layerDelta, since: 10, upto: 20, floor: 11, setting: all})}, 30, "gaps up to 11"},
		"no history":           {[][]byte{header(layerHeader{kind: layerWhole, upto: 10})}, 30, "keeps 0 revisions"},
		"history beyond upto":  {[][]byte{header(layerHeader{kind: layerWhole, upto: 10, setting: historySetting{revisions: 1, base: 11}})}, 30, "from 11 on"},
	} {
		if err := restoreInto(other, c.last, c.layers...); !errors.Is(err, errCorrupt) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %q", what, err, c.text)
		}
	}
}

func TestAReadErrorIsNotTakenForDamage(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer s.Close()
	fillStore(t, s, 1, 10)
	stream := snapshotOf(t, s)
	broken := errors.New("the network broke")
	for _, n := range []int{0, 5, len(stream) / 2, len(stream)} {
		r := io.MultiReader(bytes.NewReader(stream[:n]), &errorReader{broken})
		err := s.Restore(t.Context(), node.SnapshotMeta{Last: raft.LogID{Term: 1, Index: 10}}, r)
		if !errors.Is(err, broken) || errors.Is(err, errCorrupt) {
			t.Errorf("broken after %d bytes: %v", n, err)
		}
	}
}

type errorReader struct{ err error }

func (r *errorReader) Read([]byte) (int, error) { return 0, r.err }

// TestCrashDuringRestoreLeavesTheOldStateOrTheNew crashes at moments all over an installation.
func TestCrashDuringRestoreLeavesTheOldStateOrTheNew(t *testing.T) {
	source := openStore(t, vfs.NewMem())
	defer source.Close()
	fillStore(t, source, 1, 10)
	stream := snapshotOf(t, source)
	fillStore(t, source, 11, 20)
	stream = append(stream, deltaOf(t, source, 10)...)
	fillStore(t, source, 21, 30)
	stream = append(stream, deltaOf(t, source, 20)...)
	newState, _, err := source.Range(RangeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, survives := range []int{0, 50} {
		crashDuringRestore(t, stream, newState, vfs.CrashCloneCfg{UnsyncedDataPercent: survives, RNG: rand.New(rand.NewPCG(1, 2))})
	}
}

// crashDuringRestore restores again and again, and crashes one step later each time.
func crashDuringRestore(t *testing.T, stream []byte, newState []Entry, crash vfs.CrashCloneCfg) {
	total := 0
	for moment := 0; moment == 0 || moment <= total; moment++ {
		disk := storagetest.NewCrashable()
		s := openStore(t, disk)
		fillStore(t, s, 1, 5)
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		oldState, _, err := s.Range(RangeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex // Pebble removes files in a goroutine of its own
		var after *storagetest.Crashable
		steps := 0
		watched := &countingFS{FS: disk, step: func() {
			mu.Lock()
			defer mu.Unlock()
			if steps++; steps == moment {
				after = disk.CrashClone(crash)
			}
		}}
		s.options.FS = watched
		if err := s.Restore(t.Context(), node.SnapshotMeta{Last: raft.LogID{Term: 1, Index: 30}}, newReader(stream)); err != nil {
			t.Fatal(err)
		}
		s.Close()
		mu.Lock()
		total = max(total, steps)
		if after == nil {
			after = disk.CrashClone(crash)
		}
		mu.Unlock()
		s = openStore(t, after)
		got, _, err := s.Range(RangeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		applied, err := s.Applied()
		if err != nil {
			t.Fatal(err)
		}
		switch applied.Last.Index {
		case 5:
			if !reflect.DeepEqual(got, oldState) {
				t.Fatalf("crash at step %d: not the old state: %v", moment, got)
			}
		case 30:
			if !reflect.DeepEqual(got, newState) {
				t.Fatalf("crash at step %d: not the new state: %v", moment, got)
			}
		default:
			t.Fatalf("crash at step %d: the state goes up to %v", moment, applied.Last)
		}
		s.Close()
	}
}

// countingFS calls step before each change of the directory.
type countingFS struct {
	vfs.FS
	step func()
}

func (f *countingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f.step()
	return f.FS.Create(name, c)
}
func (f *countingFS) Link(a, b string) error   { f.step(); return f.FS.Link(a, b) }
func (f *countingFS) Rename(a, b string) error { f.step(); return f.FS.Rename(a, b) }
func (f *countingFS) Remove(name string) error { f.step(); return f.FS.Remove(name) }
func (f *countingFS) OpenDir(name string) (vfs.File, error) {
	f.step()
	return f.FS.OpenDir(name)
}

func FuzzReadLayers(f *testing.F) {
	s := openStore(f, vfs.NewMem())
	defer s.Close()
	fillStore(f, s, 1, 3)
	whole := snapshotOf(f, s)
	fillStore(f, s, 4, 6)
	f.Add(whole)
	f.Add(append(bytes.Clone(whole), deltaOf(f, s, 3)...))
	f.Add([]byte(layerMagic))
	f.Add([]byte("quorate kv snapshot 1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		// What is read can be written again, and is no longer then: a length may have been written in more bytes than it needs.
		var again bytes.Buffer
		layers := newLayerReader(bytes.NewReader(b))
		n := 0
		for {
			header, err := layers.next()
			if err == io.EOF && n > 0 {
				break
			}
			if err != nil {
				return
			}
			n++
			out, err := newLayerWriter(&again, header)
			if err != nil {
				t.Fatal(err)
			}
			if err := layers.records(out.record); err != nil {
				return
			}
			if err := out.end(); err != nil {
				t.Fatal(err)
			}
		}
		if again.Len() > len(b) {
			t.Fatalf("%x came back as %x", b, again.Bytes())
		}
	})
}
