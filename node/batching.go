package node

import "time"

// batching has users' requests wait in their channel, where they become one larger write: while the last write is on its way to the disk, and
// then, if it was a large one, until a quorum has it. Each write costs every node a message, an fsync and a dozen changes of context, which many
// proposals had better share. A quorum that is far away is waited for no longer than the disk was, so that a slow network has several writes
// under way, and nobody waits for long.
type batching struct {
	wroteAt time.Time // when the newest write was made
	until   time.Time // a quorum is waited for until then
}

// manyEntries are those that are worth gathering for: their callers are about to come back, and all at once.
const manyEntries = 32

func (g *batching) wrote(at time.Time) { g.wroteAt = at }

// synced notes that the newest write is durable here.
func (g *batching) synced(at time.Time) { g.until = at.Add(at.Sub(g.wroteAt)) }

// waits reports whether a quorum is still to be waited for, with so many entries that are not committed.
func (g *batching) waits(uncommitted uint64, now time.Time) bool {
	return uncommitted >= manyEntries && now.Before(g.until)
}
