package node

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"
)

// lateMachine makes durable what it has applied when it is told to, and not before.
type lateMachine struct {
	timesMachine
	durable Applied
	// hangs, if not nil, is what Sync waits for.
	hangs chan struct{}
}

func (m *lateMachine) Applied() (Applied, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.durable, nil
}

func (m *lateMachine) Sync(ctx context.Context) error {
	if m.hangs != nil {
		select {
		case <-m.hangs:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	now, err := m.timesMachine.Applied()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.durable = now
	return err
}

// TestAPurgeByHandHasTheStateMadeDurable: else it would go nowhere right after a snapshot, and an operator would not know why.
func TestAPurgeByHandHasTheStateMadeDurable(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	sm := &lateMachine{timesMachine: timesMachine{system: map[string][]byte{}}, hangs: make(chan struct{})}
	n := startAlone(t, t.TempDir(), t.TempDir(), sm)
	for range 5 {
		if _, err := n.Propose(ctx, []byte("a")); err != nil {
			t.Fatal(err)
		}
	}
	if id, err := n.Purge(ctx, math.MaxUint64); err != nil || id.Index != 0 {
		t.Errorf("without a snapshot: purged up to %v, %v", id, err)
	}
	if _, err := n.Snapshot(ctx); err != nil {
		t.Fatal(err)
	}
	short, end := context.WithTimeout(ctx, 50*time.Millisecond)
	defer end()
	if id, err := n.Purge(short, math.MaxUint64); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while the disk hangs: purged up to %v, %v", id, err)
	}
	close(sm.hangs)
	last := n.Status().AppliedIndex
	if id, err := n.Purge(ctx, math.MaxUint64); err != nil || id.Index != last-1 {
		t.Errorf("purged up to %v of %d: %v", id, last, err)
	}
}
