package kv

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/pebblelog"
)

// halfInstalled leaves the log, with entries up to logEnd of term 1, and the state of a follower that was killed while it installed a
// snapshot: the state is that of the snapshot already, and the log is not reset yet.
func halfInstalled(t *testing.T, logEnd uint64, snapshot raft.LogID) (node.Survivor, vfs.FS) {
	t.Helper()
	survivor := node.Survivor{Cluster: "test", ID: "n1", Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
	log, err := pebblelog.OpenLog(survivor.Dir, pebblelog.Options{Logger: survivor.Logger})
	if err != nil {
		t.Fatal(err)
	}
	peer := raft.Peer{ID: survivor.ID, Incarnation: 1}
	members := []raft.Peer{peer, {ID: "n2", Incarnation: 2}, {ID: "n3", Incarnation: 3}}
	w := storage.Write{Vote: &raft.Vote{Term: snapshot.Term}}
	for i := uint64(1); i <= logEnd; i++ {
		e := raft.Entry{ID: raft.LogID{Term: 1, Index: i}, Kind: raft.EntryCommand, Time: int64(i), Data: encodeOps(t, []op{{put: true, key: fmt.Sprint("log", i)}})}
		if err := storage.SealEntry(&e); err != nil {
			t.Fatal(err)
		}
		w.Append = append(w.Append, e)
	}
	if err := errors.Join(log.SetIdentity(storage.Identity{Cluster: "test", Peer: peer}), log.SetGenesis(storage.NewGenesis("test", members, 1<<20))); err != nil {
		t.Fatal(err)
	}
	commit, err := log.Write(w)
	if err != nil {
		t.Fatal(err)
	}
	disk := vfs.NewMem()
	s := openStore(t, disk)
	if err := errors.Join(commit.Wait(), log.Close(), s.Restore(t.Context(), node.SnapshotMeta{Last: snapshot}, newReader(wholeState(t, 5))), s.Close()); err != nil {
		t.Fatal(err)
	}
	return survivor, disk
}

// TestRecoverDiscardsALogThatTheStateContradicts: the state is that of a snapshot which the log does not have, as node.Start finds it after the same
// crash. What the log has after it was overruled.
func TestRecoverDiscardsALogThatTheStateContradicts(t *testing.T) {
	survivor, disk := halfInstalled(t, 10, raft.LogID{Term: 2, Index: 5})
	look, err := node.Recover(t.Context(), survivor, openStore(t, disk), true)
	if err != nil || !look.Discard || look.Last != look.Applied {
		t.Fatalf("before: %+v %v", look, err)
	}
	done, err := node.Recover(t.Context(), survivor, openStore(t, disk), false)
	if err != nil || !done.Discard || done.Last != look.Last || done.Begin != look.Begin {
		t.Fatalf("%+v %v, announced as %+v", done, err, look)
	}
	s := openStore(t, disk)
	defer s.Close()
	entries, _, err := s.Range(RangeOptions{})
	if err != nil || len(entries) != 5 {
		t.Errorf("%d keys, 5 are in the snapshot (%v)", len(entries), err)
	}
	for _, e := range entries {
		if strings.HasPrefix(string(e.Key), "log") {
			t.Errorf("%s was applied, which the snapshot overruled", e.Key)
		}
	}
}

// cutOffStore is killed right before the last step of a Recover.
type cutOffStore struct{ *Store }

func (s cutOffStore) Apply(b node.Batch) ([][]byte, error) {
	if b.Last.Index > 1<<32 {
		return nil, errors.New("killed")
	}
	return s.Store.Apply(b)
}

// TestRecoverThatWasCutOffGoesOn also where the state is ahead of its log.
func TestRecoverThatWasCutOffGoesOn(t *testing.T) {
	for _, c := range []struct {
		name     string
		logEnd   uint64
		snapshot raft.LogID
	}{
		{"the log goes on after the state", 8, raft.LogID{Term: 1, Index: 5}},
		{"the log contradicts the state", 8, raft.LogID{Term: 2, Index: 5}},
		{"the log ends before the state", 3, raft.LogID{Term: 2, Index: 5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			survivor, disk := halfInstalled(t, c.logEnd, c.snapshot)
			first, err := node.Recover(t.Context(), survivor, cutOffStore{openStore(t, disk)}, false)
			if err == nil {
				t.Fatalf("it was not cut off: %+v", first)
			}
			// Who starts the node now must not be told to remove the last directory that there is.
			_, err = node.Start(t.Context(), node.Config{
				Cluster: "test", ID: survivor.ID, Dir: survivor.Dir, URL: "nats://127.0.0.1:1", Logger: survivor.Logger,
			}, openStore(t, disk))
			if err == nil || !strings.Contains(err.Error(), "recover it again") || strings.Contains(err.Error(), "remove") {
				t.Errorf("started in between: %v", err)
			}
			if look, err := node.Recover(t.Context(), survivor, openStore(t, disk), true); err != nil || look.Begin != first.Begin {
				t.Errorf("after %+v, a look: %+v %v", first, look, err)
			}
			again, err := node.Recover(t.Context(), survivor, openStore(t, disk), false)
			if err != nil || again.Begin != first.Begin || again.New != first.New {
				t.Errorf("after %+v: %+v %v", first, again, err)
			}
		})
	}
}

// TestRecoverBeginsAfterTheState also if that is further ahead of its log than the gap between the two clusters.
func TestRecoverBeginsAfterTheState(t *testing.T) {
	survivor, disk := halfInstalled(t, 3, raft.LogID{Term: 2, Index: 6_000_000_000})
	r, err := node.Recover(t.Context(), survivor, openStore(t, disk), false)
	if err != nil || r.Begin.Index <= r.Applied.Index {
		t.Errorf("the state goes up to %v, the new log begins after %v (%v)", r.Applied, r.Begin, err)
	}
}
