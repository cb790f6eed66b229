package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"quorate/node"
	"quorate/node/kv/kvpb"
	"quorate/node/raft"
	"quorate/storage/storagetest"
)

func openWithHistory(t interface{ Fatal(...any) }, fs vfs.FS, history uint64) *Store {
	s, err := OpenStore("state", StoreOptions{FS: fs, Logger: slog.New(slog.DiscardHandler), history: history})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// waitSwept waits until all that can be removed is removed.
func waitSwept(t interface{ Fatal(...any) }, s *Store) {
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for s.history.due() {
		late := false
		select {
		case <-tick.C:
		case <-deadline:
			late = true
		}
		if err := s.db.failure(); err != nil || late {
			t.Fatal("history was not removed in time: ", s.history.wanted(), s.history.swept.Load(), err)
		}
	}
}

// versionsIn counts the versions in a store, whether or not they can be read.
func versionsIn(t testing.TB, s *Store) int {
	t.Helper()
	it, err := s.db.NewIter(allVersions())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		t.Fatal(err)
	}
	return n
}

// kept is the model of how much history can be read: so many revisions, but none that an earlier setting has given up.
type kept struct{ revisions, givenUp uint64 }

func (k kept) floor(last uint64) uint64 {
	if last < k.revisions || last-k.revisions < k.givenUp {
		return k.givenUp
	}
	return last - k.revisions
}

// changeHistory applies a command at index that changes the setting.
func (k *kept) changeHistory(t interface{ Fatal(...any) }, index, revisions uint64, stores ...*Store) {
	id := raft.LogID{Term: 1, Index: index}
	data, err := encodeCommand([]*kvpb.Op{{Kind: opHistory, Value: binary.BigEndian.AppendUint64(nil, revisions)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stores {
		if _, err := s.Apply(node.Batch{Commands: []node.Command{{ID: id, Time: time.Unix(0, int64(index)), Data: data}}, Last: id}); err != nil {
			t.Fatal(err)
		}
	}
	*k = kept{revisions: revisions, givenUp: k.floor(index)}
}

// checkHistory compares all that can be read, at every revision, with the model, and that what is older is refused.
func checkHistory(t *rapid.T, s *Store, m model, k kept) {
	last := s.history.last.Load()
	floor := k.floor(last)
	for revision := max(1, floor); revision <= last; revision++ {
		if got, want := listStore(t, s, "", revision, 100), m.list("", revision); !sameSet(got, want) {
			t.Fatalf("keys at %d (floor %d, last %d): %v, want %v", revision, floor, last, got, want)
		}
	}
	for revision := uint64(1); revision < floor; revision++ {
		_, rangeErr := s.Get("a", revision)
		_, _, getErr := s.Range(RangeOptions{Revision: revision})
		if !errors.Is(rangeErr, ErrCompacted) || !errors.Is(getErr, ErrCompacted) {
			t.Fatalf("read at %d, below floor %d: %v, %v", revision, floor, getErr, rangeErr)
		}
	}
}

// applyDrawn applies one random command at index to a store and to its model.
func applyDrawn(t *rapid.T, s *Store, m model, index uint64) {
	ops := drawOps(t, index)
	if _, err := s.Apply(put(t, index, ops...)); err != nil {
		t.Fatal(err)
	}
	m.apply(index, ops)
}

func TestSupersededVersionsAndTombstonesAreRemoved(t *testing.T) {
	s := openWithHistory(t, vfs.NewMem(), 10)
	defer s.Close()
	apply := func(index uint64, o op) {
		t.Helper()
		if _, err := s.Apply(put(t, index, o)); err != nil {
			t.Fatal(err)
		}
	}
	index := uint64(0)
	for range 200 { // more than are removed one by one
		index++
		apply(index, op{put: true, key: "hot", value: fmt.Sprint(index)})
	}
	apply(201, op{put: true, key: "gone", value: "x"})
	apply(202, op{key: "gone"})
	apply(203, op{put: true, key: "old", value: "x"})
	apply(204, op{put: true, key: "back", value: "x"})
	apply(205, op{key: "back"})
	apply(206, op{put: true, key: "back", value: "y"})
	for index = 207; index <= 220; index++ {
		apply(index, op{put: true, key: "other", value: fmt.Sprint(index)})
	}
	waitSwept(t, s)
	// hot@200, old@203, back@206, other@210 and what is above the floor of 210
	if n := versionsIn(t, s); n != 3+11 {
		t.Errorf("%d versions are left, want 14", n)
	}
	for _, key := range []string{"hot", "old", "back"} {
		for _, revision := range []uint64{0, 210, 220} {
			if _, err := s.Get(key, revision); err != nil {
				t.Errorf("%s at %d: %v", key, revision, err)
			}
		}
	}
	if _, err := s.Get("gone", 210); !errors.Is(err, ErrNotFound) {
		t.Errorf("a deleted key: %v", err)
	}
	if _, err := s.Get("hot", 209); !errors.Is(err, ErrCompacted) {
		t.Errorf("read below the floor: %v", err)
	}
}

// TestHistoryAgainstModel sweeps while it applies, flushes, reopens and crashes: what can be read at any revision is the model's.
func TestHistoryAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disk := storagetest.NewCrashable()
		history := rapid.Uint64Range(1, 12).Draw(t, "history")
		s := openWithHistory(t, disk, history)
		defer func() { s.Close() }()
		m, models, index := model{}, map[uint64]model{0: {}}, uint64(0)
		k := kept{revisions: history}
		settings := map[uint64]kept{0: k}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				if err := s.Sync(t.Context()); err != nil {
					t.Fatal(err)
				}
			case 1:
				waitSwept(t, s)
			case 2:
				after := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))})
				s.Close()
				disk = after
				s = openWithHistory(t, disk, history)
				index = s.history.last.Load()
				m, k = models[index].clone(), settings[index]
				checkHistory(t, s, m, k)
			case 3:
				index++
				k.changeHistory(t, index, rapid.Uint64Range(1, 20).Draw(t, "setting"), s)
				models[index], settings[index] = m.clone(), k
			default:
				index++
				applyDrawn(t, s, m, index)
				models[index], settings[index] = m.clone(), k
			}
		}
		checkHistory(t, s, m, k)
		waitSwept(t, s)
		checkHistory(t, s, m, k)
	})
}

// TestHistoryIsRemovedWhileTheStateIsReplaced: an installation neither waits for a sweep nor is disturbed by one.
func TestHistoryIsRemovedWhileTheStateIsReplaced(t *testing.T) {
	s := openWithHistory(t, vfs.NewMem(), 5)
	defer s.Close()
	fillStore(t, s, 1, 300)
	stream := snapshotOf(t, s)
	last := s.history.last.Load()
	for range 5 {
		fillStore(t, s, last+1, last+200)
		if err := s.Restore(t.Context(), node.SnapshotMeta{Last: raft.LogID{Term: 1, Index: last}}, newReader(stream)); err != nil {
			t.Fatal(err)
		}
	}
	waitSwept(t, s)
	if n := versionsIn(t, s); n > 7+5 {
		t.Fatalf("%d versions of 7 keys are left", n)
	}
	entries, _, err := s.Range(RangeOptions{})
	if err != nil || len(entries) != 7 {
		t.Fatalf("%v %v", entries, err)
	}
}

// TestARestoredStoreHasTheSendersHistory: how much the sender keeps, and its gaps, are the receiver's too, also after it was opened again.
func TestARestoredStoreHasTheSendersHistory(t *testing.T) {
	source := openWithHistory(t, vfs.NewMem(), 10)
	defer source.Close()
	fillStore(t, source, 1, 40)
	waitSwept(t, source)
	disk := vfs.NewMem()
	s := openWithHistory(t, disk, 1000)
	defer func() { s.Close() }()
	if err := restoreInto(s, 40, snapshotOf(t, source)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if s.History() != 10 {
			t.Fatalf("it keeps %d revisions", s.History())
		}
		if _, err := s.Get("key1", 29); !errors.Is(err, ErrCompacted) {
			t.Fatalf("read in the gap: %v", err)
		}
		if _, err := s.Get("key1", 30); err != nil {
			t.Fatalf("read above the gap: %v", err)
		}
		if _, err := writeDelta(s, 29); !errors.Is(err, node.ErrNoDelta) {
			t.Fatalf("difference since the gap: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openWithHistory(t, disk, 1000)
	}
}

func TestAStateOfAnEarlierFormatIsTakenOver(t *testing.T) {
	for _, format := range []string{"1", "2"} {
		disk := vfs.NewMem()
		s := openStore(t, disk)
		fillStore(t, s, 1, 10)
		if err := errors.Join(s.db.Set(formatKey, []byte(format), pebble.NoSync), s.Close()); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, disk)
		if e, err := s.Get("key3", 3); err != nil || e.Revision != 3 || s.History() != DefaultHistory {
			t.Fatalf("%+v %v, %d revisions", e, err, s.History())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestClientIsToldThatHistoryIsGone(t *testing.T) {
	reply := &nats.Msg{Header: nats.Header{"Nats-Service-Error-Code": {codeCompacted}, "Nats-Service-Error": {"revision 1 is before 2"}}}
	if err := serviceError(reply); !errors.Is(err, ErrCompacted) {
		t.Fatal(err)
	}
}
