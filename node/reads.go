package node

import (
	"slices"
	"sort"

	"quorate/node/raft"
)

// readWaiters are the linearizable reads of users: first they wait for a quorum to confirm the leader, then for the state
// machine to reach the read index. It belongs to RaftCore.
type readWaiters struct {
	last  raft.ReadID
	asked map[raft.ReadID][]request
	// confirmed wait for their index, in ascending order of it.
	confirmed []confirmedReads
}

type confirmedReads struct {
	index uint64
	reads []request
}

func (r *readWaiters) add(reads []request) raft.ReadID {
	if r.asked == nil {
		r.asked = map[raft.ReadID][]request{}
	}
	r.last++
	r.asked[r.last] = reads
	return r.last
}

// decided takes the engine's word on a batch of reads.
func (r *readWaiters) decided(d raft.ReadReady, applied uint64, notLeader error) {
	reads := r.asked[d.ID]
	delete(r.asked, d.ID)
	if d.Lost {
		resolveReads(reads, Result{}, notLeader)
		return
	}
	r.confirm(d.Index, reads, applied)
}

// confirm answers those that want no more, and lets the others wait for the index.
func (r *readWaiters) confirm(index uint64, reads []request, applied uint64) {
	waiting := reads[:0]
	for _, read := range reads {
		if read.confirm || index <= applied {
			read.pending.resolve(Result{ID: raft.LogID{Index: index}}, nil)
		} else {
			waiting = append(waiting, read)
		}
	}
	if len(waiting) > 0 {
		at := sort.Search(len(r.confirmed), func(i int) bool { return r.confirmed[i].index > index })
		r.confirmed = slices.Insert(r.confirmed, at, confirmedReads{index: index, reads: waiting})
	}
}

// applied answers the reads whose index the state machine has reached.
func (r *readWaiters) applied(index uint64) {
	n := 0
	for n < len(r.confirmed) && r.confirmed[n].index <= index {
		resolveReads(r.confirmed[n].reads, Result{ID: raft.LogID{Index: r.confirmed[n].index}}, nil)
		n++
	}
	if n > 0 {
		r.confirmed = append(r.confirmed[:0], r.confirmed[n:]...)
	}
}

func (r *readWaiters) failAll(err error) {
	for _, reads := range r.asked {
		resolveReads(reads, Result{}, err)
	}
	for _, c := range r.confirmed {
		resolveReads(c.reads, Result{}, err)
	}
	r.asked, r.confirmed = nil, nil
}

func resolveReads(reads []request, result Result, err error) {
	for _, r := range reads {
		r.pending.resolve(result, err)
	}
}
