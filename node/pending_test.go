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
