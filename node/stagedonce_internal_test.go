package node

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/objectstore"
)

// stagedState is a state machine that has one place to prepare a state in, as one on disk has.
type stagedState struct {
	memoryState
	taken  atomic.Bool
	staged atomic.Int64
	twice  atomic.Bool
	// slow, if not nil, is how long it takes to remove one: until it is closed.
	slow chan struct{}
}

func (s *stagedState) Applied() (Applied, error)  { return Applied{}, nil }
func (s *stagedState) Sync(context.Context) error { return nil }
func (s *stagedState) Stage(context.Context, SnapshotMeta, io.Reader) (Staged, error) {
	s.staged.Add(1)
	if s.taken.Swap(true) {
		s.twice.Store(true)
	}
	return s, nil
}
func (s *stagedState) Install() error { s.taken.Store(false); return nil }
func (s *stagedState) Discard() error {
	if s.slow != nil {
		<-s.slow
	}
	s.taken.Store(false)
	return nil
}

// TestAStateIsPreparedWhenTheLastOneIsGone: a fetch has ended, and RaftCore hears of another offer before it hears of that. The two states would be
// prepared in one place, and the first be removed when the second is there.
func TestAStateIsPreparedWhenTheLastOneIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		genesis := storage.NewGenesis("test", []raft.Peer{{ID: "n1", Incarnation: 1}, {ID: "n2", Incarnation: 2}}, 1<<20)
		shared, local := objectstore.NewDirectory(vfs.NewMem(), "/shared"), objectstore.NewDirectory(vfs.NewMem(), "/local")
		sm := &stagedState{slow: make(chan struct{})}
		var group sync.WaitGroup
		c := &raftCore{
			genesis: genesis, sm: sm, logger: slog.New(slog.DiscardHandler), in: newInputs(), group: &group, fetchProgress: &fetchProgress{}, ended: make(chan struct{}),
			engine: raft.New(raft.Config{
				Self: genesis.Members[1], HeartbeatInterval: time.Second, ElectionTimeout: 10 * time.Second, Rand: rand.New(rand.NewPCG(1, 1)),
			}, raft.Restored{Memberships: []raft.MembershipAt{{Membership: raft.NewMembership(genesis.Members...)}}}, time.Now()),
			snapshots: snapshots{shared: shared, local: local},
		}
		offer := func(index uint64) {
			req := &raft.InstallRequest{Term: 1, Leader: genesis.Members[0], Snapshot: storeSnapshot(t, shared, genesis.ClusterID(), index, "state")}
			c.engine.Install(time.Now(), req, raft.ReplyTo(index))
			c.fetch(t.Context(), *c.engine.Output().Fetch)
			synctest.Wait()
		}
		offer(10)
		offer(20)
		if n := sm.staged.Load(); n != 1 {
			t.Errorf("%d states are prepared", n)
		}
		e := <-c.in.snapshot
		handled := make(chan error, 1)
		go func() { handled <- c.takeSnapshotEvent(e.value) }() // of the first, which is not wanted any more
		synctest.Wait()
		select {
		case err := <-handled:
			handled <- err
		default:
			t.Error("RaftCore waits until the state is removed")
		}
		if n := sm.staged.Load(); n != 1 {
			t.Errorf("%d states are prepared, and the first one is not gone", n)
		}
		close(sm.slow)
		if err := <-handled; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := sm.staged.Load(); n != 2 || !sm.taken.Load() {
			t.Errorf("%d states were prepared, and the last one is there: %v", n, sm.taken.Load())
		}
		if sm.twice.Load() {
			t.Error("a state was prepared while another one was there")
		}
		close(c.ended)
		group.Wait()
		(<-c.in.snapshot).value.drop(c.logger)
	})
}
