package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"quorate/node"
	"quorate/node/kv/kvpb"
	"quorate/node/raft"
	"quorate/storage/storagetest"
)

// op is an operation as the tests write it.
type op struct {
	put         bool
	key, value  string
	conditional bool
	expected    uint64
}

func encodeOps(t interface{ Fatal(...any) }, ops []op) []byte {
	var pb []*kvpb.Op
	for _, o := range ops {
		kind := uint32(opDelete)
		if o.put {
			kind = opPut
		}
		pb = append(pb, &kvpb.Op{Kind: kind, Key: []byte(o.key), Value: []byte(o.value), Conditional: o.conditional, Expected: o.expected})
	}
	b, err := encodeCommand(pb)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func openStore(t interface{ Fatal(...any) }, fs vfs.FS) *Store {
	s, err := OpenStore("state", StoreOptions{FS: fs, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// version is a version of a key in the model; a deletion has no value.
type version struct {
	revision uint64
	value    string
	deleted  bool
}

// model is the slow and obvious store.
type model map[string][]version

func (m model) clone() model {
	c := model{}
	for k, v := range m {
		c[k] = append([]version(nil), v...)
	}
	return c
}

func (m model) at(key string, revision uint64) (version, bool) {
	versions := m[key]
	for i := len(versions) - 1; i >= 0; i-- {
		if versions[i].revision <= revision {
			return versions[i], !versions[i].deleted
		}
	}
	return version{}, false
}

func (m model) apply(revision uint64, ops []op) []kvpb.OpOutcome {
	var outcomes []kvpb.OpOutcome
	written := map[string]bool{}
	for _, o := range ops {
		current, exists := m.at(o.key, revision)
		if !exists {
			current.revision = 0
		}
		switch {
		case len(o.key) == 0 || len(o.key) > MaxKeyBytes:
			outcomes = append(outcomes, kvpb.OpOutcome{Status: outcomeInvalid})
		case written[o.key] && o.put && exists:
			outcomes = append(outcomes, kvpb.OpOutcome{Status: outcomeDuplicate})
		case o.conditional && current.revision != o.expected:
			outcomes = append(outcomes, kvpb.OpOutcome{Status: outcomeCondition, Revision: current.revision})
		case !o.put && !exists:
			outcomes = append(outcomes, kvpb.OpOutcome{Status: outcomeNotFound})
		default:
			m[o.key] = append(m[o.key], version{revision: revision, value: o.value, deleted: !o.put})
			written[o.key] = true
			outcomes = append(outcomes, kvpb.OpOutcome{Status: outcomeDone, Revision: revision})
		}
	}
	return outcomes
}

func (m model) list(prefix string, revision uint64) []string {
	var list []string
	for key := range m {
		if v, ok := m.at(key, revision); ok && strings.HasPrefix(key, prefix) {
			list = append(list, fmt.Sprintf("%q=%s@%d", key, v.value, v.revision))
		}
	}
	sort.Strings(list)
	return list
}

func listStore(t *rapid.T, s *Store, prefix string, revision uint64, page int) []string {
	var list []string
	o := RangeOptions{Prefix: prefix, Revision: revision, Limit: page}
	for {
		entries, more, err := s.Range(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			list = append(list, fmt.Sprintf("%q=%s@%d", e.Key, e.Value, e.Revision))
		}
		if !more {
			return list
		}
		o.After = entries[len(entries)-1].Key
	}
}

// drawOps draws the operations of one command, no key twice.
func drawOps(t *rapid.T, revision uint64) []op {
	var ops []op
	seen := map[string]bool{}
	for range rapid.IntRange(1, 4).Draw(t, "operations") {
		o := op{put: rapid.IntRange(0, 3).Draw(t, "put") > 0, key: string(anyKey.Draw(t, "key"))}
		if rapid.IntRange(0, 30).Draw(t, "bad key") == 0 {
			o.key = rapid.SampledFrom([]string{"", strings.Repeat("x", MaxKeyBytes+1)}).Draw(t, "key")
		}
		if seen[o.key] {
			continue
		}
		seen[o.key] = true
		if o.put {
			o.value = fmt.Sprint("v", revision)
		}
		if o.conditional = rapid.Bool().Draw(t, "conditional"); o.conditional {
			o.expected = rapid.Uint64Range(0, revision).Draw(t, "expected")
		}
		ops = append(ops, o)
	}
	return ops
}

// TestStoreAgainstModel applies random batches and compares results, reads at any revision, and pages, with the model.
func TestStoreAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := openStore(t, vfs.NewMem())
		defer s.Close()
		m := model{}
		revision := uint64(0)
		for range rapid.IntRange(1, 12).Draw(t, "batches") {
			batch := node.Batch{}
			var want [][]kvpb.OpOutcome
			for range rapid.IntRange(1, 4).Draw(t, "commands") {
				revision += rapid.Uint64Range(1, 3).Draw(t, "gap")
				ops := drawOps(t, revision)
				batch.Commands = append(batch.Commands, node.Command{ID: raft.LogID{Term: 1, Index: revision}, Time: time.Unix(0, int64(revision)), Data: encodeOps(t, ops)})
				want = append(want, m.apply(revision, ops))
			}
			batch.Last = raft.LogID{Term: 1, Index: revision}
			results, err := s.Apply(batch)
			if err != nil {
				t.Fatal(err)
			}
			for i, result := range results {
				var outcome kvpb.Outcome
				if err := outcome.UnmarshalVT(result); err != nil {
					t.Fatal(err)
				}
				for j, got := range outcome.Ops {
					if got.Status != want[i][j].Status || got.Revision != want[i][j].Revision {
						t.Fatalf("command %d, operation %d: %v, want %v", i, j, got, &want[i][j])
					}
				}
			}
		}
		at := rapid.Uint64Range(1, revision).Draw(t, "read at")
		prefix := string(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 'a', 0xff}), 0, 2).Draw(t, "prefix"))
		page := rapid.IntRange(1, 5).Draw(t, "page")
		if got, want := listStore(t, s, prefix, at, page), m.list(prefix, at); !sameSet(got, want) {
			t.Fatalf("keys with prefix %q at %d: %v, want %v", prefix, at, got, want)
		}
		for key := range m {
			if key == "" || len(key) > MaxKeyBytes {
				continue
			}
			want, exists := m.at(key, at)
			got, err := s.Get(key, at)
			if exists != (err == nil) || (!exists && !errors.Is(err, ErrNotFound)) || (exists && (string(got.Value) != want.value || got.Revision != want.revision)) {
				t.Fatalf("key %q at %d: %+v (%v), want %+v (%t)", key, at, got, err, want, exists)
			}
		}
	})
}

// sameSet compares lists whose %q form sorts differently from the keys.
func sameSet(a, b []string) bool {
	a, b = append([]string(nil), a...), append([]string(nil), b...)
	sort.Strings(a)
	sort.Strings(b)
	return reflect.DeepEqual(a, b) || len(a)+len(b) == 0
}

func TestAKeyTwiceInOneCommandIsRefused(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer s.Close()
	results, err := s.Apply(put(t, 5, op{put: true, key: "a", value: "1"}, op{put: true, key: "a", value: "2"}))
	if err != nil {
		t.Fatal(err)
	}
	var outcome kvpb.Outcome
	if err := outcome.UnmarshalVT(results[0]); err != nil || outcome.Ops[0].Status != outcomeDone || outcome.Ops[1].Status != outcomeDuplicate {
		t.Fatalf("got %v (%v)", &outcome, err)
	}
	if e, err := s.Get("a", 0); err != nil || string(e.Value) != "1" {
		t.Fatalf("got %+v %v", e, err)
	}
}

func TestUnknownCommandStopsTheNode(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer s.Close()
	newer, err := (&kvpb.Command{Version: 2}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	kind, err := (&kvpb.Command{Version: 1, Ops: []*kvpb.Op{{Kind: 9, Key: []byte("a")}}}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{newer, kind, []byte("garbage")} {
		_, err := s.Apply(node.Batch{Commands: []node.Command{{ID: raft.LogID{Term: 1, Index: 1}, Data: data}}, Last: raft.LogID{Term: 1, Index: 1}})
		if !errors.Is(err, errCommand) {
			t.Fatalf("%x: %v", data, err)
		}
	}
}

func put(t interface{ Fatal(...any) }, index uint64, ops ...op) node.Batch {
	id := raft.LogID{Term: 1, Index: index}
	return node.Batch{Commands: []node.Command{{ID: id, Time: time.Unix(0, int64(index)), Data: encodeOps(t, ops)}}, Last: id}
}

// TestCrashLeavesTheStateAfterSomeBatch crashes the store at random moments: what is there is exactly the model's state at the
// applied log id, and at least what Sync made durable.
func TestCrashLeavesTheStateAfterSomeBatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disk := storagetest.NewCrashable()
		s := openStore(t, disk)
		history := map[uint64]model{0: {}}
		m, index, synced := model{}, uint64(0), uint64(0)
		for range rapid.IntRange(1, 15).Draw(t, "batches") {
			index++
			ops := drawOps(t, index)
			batch := put(t, index, ops...)
			batch.System = []node.SystemRecord{{Key: "membership", Value: fmt.Append(nil, index)}}
			if _, err := s.Apply(batch); err != nil {
				t.Fatal(err)
			}
			m.apply(index, ops)
			history[index] = m.clone()
			if rapid.IntRange(0, 3).Draw(t, "sync") == 0 {
				if err := s.Sync(context.Background()); err != nil {
					t.Fatal(err)
				}
				synced = index
			}
		}
		cfg := vfs.CrashCloneCfg{}
		if rapid.Bool().Draw(t, "some unsynced data survives") {
			cfg = vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))}
		}
		after := disk.CrashClone(cfg)
		s.Close()
		s = openStore(t, after)
		defer s.Close()
		applied, err := s.Applied()
		if err != nil {
			t.Fatal(err)
		}
		if applied.Last.Index < synced {
			t.Fatalf("the state goes up to %v, but %d was synced", applied.Last, synced)
		}
		want, ok := history[applied.Last.Index]
		if !ok {
			t.Fatalf("the state goes up to %v, which was never applied", applied.Last)
		}
		if last := applied.Last.Index; last > 0 {
			if len(applied.System) != 1 || string(applied.System[0].Value) != fmt.Sprint(last) {
				t.Fatalf("system records %v at %d", applied.System, last)
			}
			if got := listStore(t, s, "", last, 100); !sameSet(got, want.list("", last)) {
				t.Fatalf("state at %d is %v, want %v", last, got, want.list("", last))
			}
		}
	})
}

func TestForeignAndNewerDirectoriesAreRefused(t *testing.T) {
	foreign := vfs.NewMem()
	if err := foreign.MkdirAll("state/photos", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore("state", StoreOptions{FS: foreign}); err == nil || !strings.Contains(err.Error(), `"photos"`) {
		t.Fatalf("foreign directory: %v", err)
	}
	newer := vfs.NewMem()
	s := openStore(t, newer)
	if err := errors.Join(s.db.Set(formatKey, []byte("4"), pebble.NoSync), s.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore("state", StoreOptions{FS: newer, Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), `format "4"`) {
		t.Fatalf("newer format: %v", err)
	}
}

func TestADirectoryInUseIsNotTakenForDamaged(t *testing.T) {
	dir := t.TempDir()
	options := StoreOptions{Logger: slog.New(slog.DiscardHandler)}
	s, err := OpenStore(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := OpenStore(dir, options); err == nil || !strings.Contains(err.Error(), "in use") || strings.Contains(err.Error(), "damaged") {
		t.Errorf("opened twice: %v", err)
	}
}

// listing calls before with the number of each List, from 1 on.
type listing struct {
	vfs.FS
	n      int
	before func(n int)
}

func (f *listing) List(dir string) ([]string, error) {
	f.n++
	f.before(f.n)
	return f.FS.List(dir)
}

// TestASecondStartLeavesTheStateAlone: neither what is staged nor what takes the present state's place meanwhile is a left-over to the
// second start, at whatever moment of it.
func TestASecondStartLeavesTheStateAlone(t *testing.T) {
	whole := wholeState(t, 50)
	meta := node.SnapshotMeta{Last: raft.LogID{Term: 1, Index: 50}}
	for moment := 1; moment <= 4; moment++ { // that of the installation: before a List of the second start, or after it
		disk := vfs.NewMem()
		first := openStore(t, disk)
		fillStore(t, first, 1, 3)
		staged, err := first.Stage(t.Context(), meta, newReader(whole))
		if err != nil {
			t.Fatal(err)
		}
		install := sync.OnceFunc(func() {
			if err := staged.Install(); err != nil {
				t.Errorf("moment %d: %v", moment, err)
			}
		})
		second := &listing{FS: disk, before: func(n int) {
			if n == moment {
				install()
			}
		}}
		_, err = OpenStore("state", StoreOptions{FS: second, Logger: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("moment %d: opened twice: %v", moment, err)
		}
		install()
		if err := first.Close(); err != nil {
			t.Errorf("moment %d: %v", moment, err)
		}
		again := openStore(t, disk)
		if applied, err := again.Applied(); err != nil || applied.Last != meta.Last {
			t.Errorf("moment %d: after a restart the state goes up to %v, want %v (%v)", moment, applied.Last, meta.Last, err)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
}

func snapshotOf(t testing.TB, s *Store) []byte {
	t.Helper()
	view, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	var b bytes.Buffer
	if err := view.WriteTo(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func fillStore(t testing.TB, s *Store, from, to uint64) {
	t.Helper()
	for i := from; i <= to; i++ {
		if _, err := s.Apply(put(t.(interface{ Fatal(...any) }), i, op{put: true, key: fmt.Sprint("key", i%7), value: fmt.Sprint(i)})); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSnapshotIsTheStateAtItsMoment(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer s.Close()
	fillStore(t, s, 1, 20)
	view, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	fillStore(t, s, 21, 40)
	var b bytes.Buffer
	if err := errors.Join(view.WriteTo(t.Context(), &b), view.Close()); err != nil {
		t.Fatal(err)
	}
	other := openStore(t, vfs.NewMem())
	defer other.Close()
	fillStore(t, other, 1, 3)
	meta := node.SnapshotMeta{Last: raft.LogID{Term: 1, Index: 20}, System: []node.SystemRecord{{Key: "membership", Value: []byte("m")}}}
	if err := other.Restore(t.Context(), meta, &b); err != nil {
		t.Fatal(err)
	}
	applied, err := other.Applied()
	if err != nil || applied.Last != meta.Last || len(applied.System) != 1 {
		t.Fatalf("applied %+v (%v)", applied, err)
	}
	got, _, err := other.Range(RangeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := s.Range(RangeOptions{Revision: 20})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("restored %v, want %v (%v)", got, want, err)
	}
	fillStore(t, other, 21, 25) // it goes on from there
}

func TestBrokenSnapshotsLeaveTheStateAlone(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer s.Close()
	fillStore(t, s, 1, 20)
	good := snapshotOf(t, s)
	before, _, err := s.Range(RangeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	meta := node.SnapshotMeta{Last: raft.LogID{Term: 9, Index: 99}}
	check := func(what string, b []byte) {
		if err := s.Restore(t.Context(), meta, bytes.NewReader(b)); !errors.Is(err, errCorrupt) {
			t.Fatalf("%s: %v", what, err)
		}
		if after, _, err := s.Range(RangeOptions{}); err != nil || !reflect.DeepEqual(after, before) {
			t.Fatalf("%s: the state has changed (%v)", what, err)
		}
	}
	for n := 0; n < len(good); n += 37 {
		check(fmt.Sprintf("cut to %d bytes", n), good[:n])
	}
	for n := 0; n < len(good); n += 29 {
		flipped := bytes.Clone(good)
		flipped[n] ^= 0x10
		check(fmt.Sprintf("bit flipped in byte %d", n), flipped)
	}
}
