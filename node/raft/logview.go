package raft

import "sort"

// LogView is what the engine knows of its log: not the entries, but which term each index has. Terms only grow along a
// log, so the first entry of each term says it all, and a look-up never touches a disk.
//
// Invariants: purged <= last; runs are in ascending order of index and of term; the first run, if any, starts right
// after purged; every index in (purged, last] belongs to a run.
type LogView struct {
	// purged is the log id before the first entry: the newest purged one, or zero.
	purged LogID
	// runs holds the first log id of each term that has entries.
	runs []LogID
	last LogID
}

// NewLogView returns the view of a log that begins after purged and ends with last. termOf gives the term of an index
// in between; it is asked O(terms * log entries) times.
func NewLogView(purged, last LogID, termOf func(index uint64) (uint64, error)) (LogView, error) {
	v := LogView{purged: purged, last: purged}
	for index := purged.Index + 1; index <= last.Index; {
		term, err := termOf(index)
		if err != nil {
			return LogView{}, err
		}
		v.runs = append(v.runs, LogID{Term: term, Index: index})
		var failed error
		length := sort.Search(int(last.Index-index), func(i int) bool {
			t, err := termOf(index + uint64(i) + 1)
			if err != nil {
				failed = err
			}
			return t > term
		})
		if failed != nil {
			return LogView{}, failed
		}
		index += uint64(length) + 1
	}
	v.last = last
	return v, nil
}

// Last returns the newest log id.
func (v *LogView) Last() LogID { return v.last }

// Term returns the term at index, and false if the log does not reach there or has been purged beyond it.
func (v *LogView) Term(index uint64) (uint64, bool) {
	switch {
	case index == v.purged.Index:
		return v.purged.Term, true
	case index < v.purged.Index || index > v.last.Index:
		return 0, false
	case len(v.runs) > 0 && index >= v.runs[len(v.runs)-1].Index: // the usual question is about the end
		return v.last.Term, true
	}
	i := sort.Search(len(v.runs), func(i int) bool { return v.runs[i].Index > index })
	return v.runs[i-1].Term, true
}

// Has reports whether the log holds this very entry.
func (v *LogView) Has(id LogID) bool {
	term, ok := v.Term(id.Index)
	return ok && term == id.Term
}

// Append adds the id that follows on the last one.
func (v *LogView) Append(id LogID) {
	if len(v.runs) == 0 || v.last.Term != id.Term {
		v.runs = append(v.runs, id)
	}
	v.last = id
}

// Truncate forgets the entry at from and all after it. from must be above the purged index.
func (v *LogView) Truncate(from uint64) {
	if from > v.last.Index {
		return
	}
	term, _ := v.Term(from - 1)
	n := sort.Search(len(v.runs), func(i int) bool { return v.runs[i].Index >= from })
	v.runs = v.runs[:n]
	v.last = LogID{Term: term, Index: from - 1}
}

// Hint returns the newest log id that could agree with a leader whose entry prev does not: its index is below that of
// prev and its term at most that of prev. One round of it skips all entries of a conflicting term (paper section 5.3).
// What is purged is committed and agrees, so it is the least hint.
func (v *LogView) Hint(prev LogID) LogID {
	index := min(prev.Index-1, v.last.Index)
	for index > v.purged.Index {
		term, _ := v.Term(index)
		if term <= prev.Term {
			return LogID{Term: term, Index: index}
		}
		// The entries of this term are all too new: go to before its first.
		n := sort.Search(len(v.runs), func(i int) bool { return v.runs[i].Index > index })
		index = v.runs[n-1].Index - 1
	}
	return v.purged
}
