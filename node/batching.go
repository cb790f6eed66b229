package node

import "time"

// batching has users' requests wait in their channel, where they become one larger write: while the last write is on its way to the disk, and
// then, if it was a large one, until a quorum has it. Each write costs every node a message, an fsync and a dozen changes of context, which many
// proposals had better share. A quorum that is far away is waited for no longer than a few times what the disk took, so that a slow network has
// several writes under way, and nobody waits for long.
type batching struct {
	wroteAt time.Time // when the newest write was made
	until   time.Time // a quorum is waited for until then
}

// manyEntries are those that are worth gathering for: their callers are about to come back, and all at once.
const manyEntries = 32

func (g *batching) wrote(at time.Time) { g.wroteAt = at }

// diskTimes is how many times as long as for the disk a quorum is waited for: followers that share the disk or the processors take more than one.
const diskTimes = 4

// synced notes that the newest write is durable here.
func (g *batching) synced(at time.Time) { g.until = at.Add(diskTimes * at.Sub(g.wroteAt)) }

// waits reports whether a quorum is still to be waited for, with so many entries that are not committed.
func (g *batching) waits(uncommitted uint64, now time.Time) bool {
	return uncommitted >= manyEntries && now.Before(g.until)
}

// maxYields bounds how often others may run first; the runtime runs some sixty goroutines a time.
const maxYields = 8

// comeBack has users who were answered a moment ago ask again, so that they all fit into one write with those who wait already: without it the
// two take turns for ever, each with a write of half the size. It yields until no more come. A lone user does not pay for it: yielding wakes a
// thread of the runtime.
func comeBack(waiting func() int, yield func()) {
	for n, i := waiting(), 0; i < maxYields; i++ {
		yield()
		now := waiting()
		if now == n {
			return
		}
		n = now
	}
}
