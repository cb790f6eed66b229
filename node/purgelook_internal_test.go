package node

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"quorate/node/raft"
)

// laggingMachine has nothing on its disk until a Sync ends, which does not.
type laggingMachine struct {
	*timesMachine
	looks   atomic.Int64
	syncing chan struct{}
}

func (m *laggingMachine) Applied() (Applied, error) {
	m.looks.Add(1)
	a, err := m.timesMachine.Applied()
	a.Last = raft.LogID{}
	return a, err
}

func (m *laggingMachine) Sync(ctx context.Context) error {
	m.syncing <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

// TestWhatIsDurableIsNotLookedUpWhileTheStateIsMadeSo: to look is to read all records, in RaftCore, and the end of that says when to look again.
func TestWhatIsDurableIsNotLookedUpWhileTheStateIsMadeSo(t *testing.T) {
	m := &laggingMachine{timesMachine: &timesMachine{system: map[string][]byte{}}, syncing: make(chan struct{}, 1)}
	n := startAlone(t, t.TempDir(), t.TempDir(), m)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := n.Reload(ctx, Reloadable{KeepEntries: 1}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := n.Propose(ctx, []byte("a")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Snapshot(ctx); err != nil { // so the log can be purged
		t.Fatal(err)
	}
	select {
	case <-m.syncing:
	case <-ctx.Done():
		t.Fatal("nobody makes the state durable")
	}
	before := m.looks.Load()
	for range 10 {
		_, err := inCore(ctx, n, func(c *raftCore) (struct{}, error) {
			c.snapshots.purgeAt = time.Time{} // as if a second had gone by
			return struct{}{}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if looks := m.looks.Load() - before; looks > 0 {
		t.Errorf("%d looks in 10 s", looks)
	}
}
