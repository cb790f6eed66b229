package node

import "context"

// ApplySlice is how long RaftCore applies between two looks at its inputs.
const ApplySlice = applySlice

// Requests returns how many requests of users wait in RaftCore's channel.
func (n *Node) Requests() int { return len(n.in.api) }

// End ends the node as Close does, and waits for nothing.
func (n *Node) End() { n.fail(ErrStopped) }

// WaitForSnapshot returns how many wait for a build that has not begun.
func (n *Node) WaitForSnapshot(ctx context.Context) int {
	waiting, _ := inCore(ctx, n, func(c *raftCore) (int, error) { return len(c.snapshots.waiting), nil })
	return waiting
}
