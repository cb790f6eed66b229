package node

import (
	"context"
	"testing"
	"time"
)

// wideMachine answers each command with 40 KiB.
type wideMachine struct{ timesMachine }

func (m *wideMachine) Apply(batch Batch) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	results := make([][]byte, len(batch.Commands))
	for i := range results {
		results[i] = make([]byte, 40<<10)
	}
	m.last = batch.Last
	for _, r := range batch.Records(results) {
		m.system[r.Key] = r.Value
	}
	return results, nil
}

// TestASnapshotHoldsTheSessionsWhateverTheirResults: one session, with fewer results than it may have, has more of them than a manifest may be
// large.
func TestASnapshotHoldsTheSessionsWhateverTheirResults(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	n := startAlone(t, t.TempDir(), t.TempDir(), &wideMachine{timesMachine{system: map[string][]byte{}}})
	p, err := n.SubmitSession(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var all []*Pending
	for i := range uint64(sessionWindow - 300) {
		p, err := n.SubmitTagged([]byte("x"), Tag{Session: s.ID.Index, Sequence: i + 1, LowWater: 1})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	for _, p := range all {
		if _, err := p.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Snapshot(ctx); err != nil {
		t.Fatal(err)
	}
}
