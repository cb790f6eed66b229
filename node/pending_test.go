package node

import (
	"errors"
	"testing"

	"quorate/node/raft"
)

func TestProposalsThatASnapshotPassesAreAnswered(t *testing.T) {
	var p proposals
	waiting := map[uint64]*Pending{}
	for index := uint64(3); index <= 8; index++ {
		w := newPending(raft.Entry{})
		w.id = raft.LogID{Term: 1, Index: index}
		waiting[index] = w
		p.add(w)
		if index == 4 {
			p.orphan() // leadership was lost and won again
		}
	}
	p.passed(6)
	for index, w := range waiting {
		select {
		case o := <-w.reply:
			if index > 6 || !errors.Is(o.err, ErrUnknownOutcome) {
				t.Errorf("proposal at %d: %v", index, o.err)
			}
		default:
			if index <= 6 {
				t.Errorf("proposal at %d waits for ever", index)
			}
		}
	}
	// What came after the snapshot is decided as ever.
	p.applied(raft.LogID{Term: 1, Index: 7}, []byte("x"), nil)
	if o := <-waiting[7].reply; o.err != nil || string(o.result.Value) != "x" {
		t.Error(o)
	}
	p.applied(raft.LogID{Term: 2, Index: 8}, nil, nil)
	if o := <-waiting[8].reply; !errors.Is(o.err, ErrLost) {
		t.Error(o)
	}
}

// TestProposalsThatAreNeverAllDecidedDoNotPileUp: under load the next are there before the last ones are applied.
func TestProposalsThatAreNeverAllDecidedDoNotPileUp(t *testing.T) {
	const waiting, all = 100, 100_000
	var p proposals
	decided := uint64(0)
	then := func(o outcome) {
		if decided++; o.err != nil || o.result.ID.Index != decided {
			t.Fatalf("%d proposals are decided, and then %v: %v", decided-1, o.result.ID, o.err)
		}
	}
	for index := uint64(1); index <= all; index++ {
		p.add(&Pending{id: raft.LogID{Term: 1, Index: index}, then: then})
		if index > waiting {
			p.applied(raft.LogID{Term: 1, Index: index - waiting}, nil, nil)
		}
	}
	if decided != all-waiting || cap(p.waiting) > 10*waiting {
		t.Errorf("%d are decided; there is room for %d, and never more than %d waited", decided, cap(p.waiting), waiting+1)
	}
}
