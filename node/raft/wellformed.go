package raft

// MaxTerm and MaxIndex bound what is believed of a message: no cluster gets there in its life, and arithmetic beyond
// them could overflow.
const (
	MaxTerm  = 1 << 62
	MaxIndex = 1 << 62
)

// What is checked of a message before anything is believed of it: bounds, order, and that its parts fit each other (rule 9
// of the design). A log that grows by a message that passed is always in order. Each check returns what is wrong, or "".

func (r *AppendRequest) malformed(self Peer) string {
	switch {
	case r.Term == 0 || r.Term > MaxTerm:
		return "term out of bounds"
	case r.Leader.ID == "":
		return "no leader"
	case r.Leader.ID == self.ID:
		return "it comes from this node's own name"
	case (r.Prev.Index == 0) != (r.Prev.Term == 0):
		return "previous log id is of index 0 or term 0, but not of both"
	case r.Prev.Index > MaxIndex:
		return "previous index out of bounds"
	}
	if r.Snapshot.Index > MaxIndex || r.Snapshot.Term > r.Term || (r.Snapshot.Index == 0) != (r.Snapshot.Term == 0) {
		return "snapshot's log id out of bounds"
	}
	before := r.Prev
	if before.Term > r.Term {
		return "previous log id is of a term after its leader's"
	}
	for i := range r.Entries {
		entry := &r.Entries[i]
		switch id := entry.ID; {
		case id.Index != before.Index+1:
			return "entries are not in a row"
		case id.Term < before.Term || id.Term == 0:
			return "terms go back along its entries"
		case id.Term > r.Term:
			return "entry is of a term after its leader's"
		}
		if entry.Kind == EntryMembership && (entry.Membership == nil || entry.Membership.Validate() != nil) {
			return "entry has no valid membership"
		}
		if entry.Kind == EntrySetting && (entry.Setting == nil || entry.Setting.Validate() != nil) {
			return "entry has no valid setting"
		}
		before = entry.ID
	}
	return ""
}

func (r *InstallRequest) malformed(self Peer) string {
	last := r.Snapshot.Last
	switch {
	case r.Term == 0 || r.Term > MaxTerm:
		return "term out of bounds"
	case r.Leader.ID == "":
		return "no leader"
	case r.Leader.ID == self.ID:
		return "it comes from this node's own name"
	case last.Index == 0 || last.Index > MaxIndex || last.Term == 0:
		return "snapshot's log id out of bounds"
	case last.Term > r.Term:
		return "snapshot is of a term after its leader's"
	}
	return ""
}

func (r *VoteRequest) malformed(self Peer) string {
	switch {
	case r.Term == 0 || r.Term > MaxTerm:
		return "term out of bounds"
	case r.Candidate.ID == "":
		return "no candidate"
	case r.Candidate.ID == self.ID:
		return "it comes from this node's own name"
	case r.Last.Term > r.Term || r.Last.Index > MaxIndex:
		return "last log id out of bounds"
	}
	return ""
}
