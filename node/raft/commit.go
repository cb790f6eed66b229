package raft

// advanceCommit commits what a quorum of each set of voters has on disk. The leader counts itself, if it votes, up to
// what is durable in its own log. Only an entry of its own term commits by counting, and with it all before it
// (paper section 5.4.2, Figure 8).
func (e *Engine) advanceCommit() {
	if e.leading == nil {
		return
	}
	index := e.Membership().QuorumValue(func(m Member) uint64 {
		if m.Peer == e.cfg.Self {
			return e.disk.index
		}
		t := e.leading.targets[m.ID]
		if t == nil || t.peer != m.Peer || t.suspect {
			return 0
		}
		return t.matched.Index
	})
	if index <= e.commit {
		return
	}
	if term, ok := e.log.Term(index); !ok || term != e.leading.term {
		return
	}
	e.setCommit(index)
	e.out.Replicate = true
	e.startReads()
	e.finishChange()
}

// Serving reports whether the node leads and an entry of its own term is committed: from then on it knows all that is
// committed.
func (e *Engine) Serving() bool { return e.leading != nil && e.commit >= e.leading.start.Index }
