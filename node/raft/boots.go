package raft

// boots notices when two processes answer under one name by turns: after the second has been seen, the first must be
// gone for good (rule 10 of the design).
type boots struct {
	current uint64
	// since is the newest message that was out when current was first seen. Whoever answers a later one lives beside it.
	since    uint64
	previous map[uint64]bool
}

// maxBoots bounds how many restarts of a peer are remembered within one leadership.
const maxBoots = 1024

// verdict is what an answer's boot id says of it.
type verdict uint8

const (
	bootGood verdict = iota
	// bootLate: perhaps the answer of a process that was replaced meanwhile.
	bootLate
	// bootAlternates: two processes are alive at the same time.
	bootAlternates
)

// see judges the answer of a process to message id, while lastID is the newest one out.
func (b *boots) see(boot, id, lastID uint64) verdict {
	switch {
	case boot == b.current || boot == 0:
		return bootGood
	case id <= b.since:
		return bootLate
	case b.previous[boot]:
		return bootAlternates
	}
	if b.current != 0 {
		if b.previous == nil || len(b.previous) >= maxBoots {
			b.previous = map[uint64]bool{}
		}
		b.previous[b.current] = true
	}
	b.current, b.since = boot, lastID
	return bootGood
}
