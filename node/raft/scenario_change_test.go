package raft

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// The commands of scenarios about membership changes, transfer and snapshots.

// run lets time pass and delivers all messages.
func (s *scenario) run(t *testing.T, d *datadriven.TestData) {
	const step = 25 * time.Millisecond
	var length string
	d.ScanArgs(t, "for", &length)
	duration, err := time.ParseDuration(length)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	for end := s.c.now.Add(duration); s.c.now.Before(end); {
		s.c.deliver(func(*letter) bool { return true }, 10000)
		s.c.now = s.c.now.Add(step)
		s.c.expire()
		for _, n := range s.c.nodes {
			n.tick()
		}
	}
	s.c.deliver(func(*letter) bool { return true }, 10000)
}

// brief leaves out the messages, but for those that are rare.
func brief(lines string) string {
	var kept strings.Builder
	for line := range strings.Lines(lines) {
		if !strings.Contains(line, ">") || strings.Contains(line, "stand now!") || strings.Contains(line, "removed by") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// members tells each node's configuration.
func (c *cluster) members() string {
	var s strings.Builder
	for _, n := range c.nodes {
		if !n.up {
			fmt.Fprintf(&s, "%s is down\n", n.self.ID)
			continue
		}
		at := n.engine.MembershipAt()
		fmt.Fprintf(&s, "%s %v: %v of %v, committed %d of %v\n", n.self.ID, n.engine.Role(), at.Membership, at.ID, n.engine.Commit(), n.engine.LastLogID())
	}
	return s.String()
}

// ask hands an operator's wish to the engine.
func (s *scenario) ask(t *testing.T, d *datadriven.TestData, n *clusterNode) {
	c := s.c
	if d.Cmd == "transfer" {
		var to string
		d.MaybeScanArgs(t, "to", &to)
		if err := n.engine.Transfer(c.now, NodeID(to)); err != nil {
			c.say("%v", err)
		}
		n.flush()
		return
	}
	change := Change{Force: d.HasArg("force")}
	for _, arg := range d.CmdArgs {
		for _, val := range arg.Vals {
			switch arg.Key {
			case "voters":
				change.Voters = append(change.Voters, c.node(NodeID(val)).self)
			case "learners":
				change.Learners = append(change.Learners, c.node(NodeID(val)).self)
			case "if":
				change.If = &LogID{}
				if _, err := fmt.Sscanf(val, "%d.%d", &change.If.Term, &change.If.Index); err != nil {
					d.Fatalf(t, "log id %q: %v", val, err)
				}
			}
		}
	}
	if id, err := n.engine.ChangeMembership(c.now, change); err != nil {
		c.say("%v", err)
	} else {
		c.say("%s changes the membership by %v", n.self.ID, id)
	}
	n.flush()
}

// membershipAt is the configuration in force at an index of the node's log.
func (n *clusterNode) membershipAt(index uint64) MembershipAt {
	at := n.baseMembership
	for _, e := range n.log {
		if e.Kind == EntryMembership && e.ID.Index <= index {
			at = MembershipAt{ID: e.ID, Membership: e.Membership}
		}
	}
	return at
}

// snapshots plays the builder, the fetcher, and the log store's part of a purge and an installation.
func (s *scenario) snapshots(t *testing.T, d *datadriven.TestData, n *clusterNode) {
	c := s.c
	switch d.Cmd {
	case "snapshot":
		n.makeSnapshot()
	case "purge":
		to := n.engine.PurgeFloor()
		d.MaybeScanArgs(t, "to", &to)
		n.purgeLog(to)
	case "install":
		if n.fetching == nil {
			d.Fatalf(t, "%s fetches no snapshot", n.self.ID)
		}
		n.install(*n.fetching)
	case "lose":
		if n.fetching == nil {
			d.Fatalf(t, "%s fetches no snapshot", n.self.ID)
		}
		n.engine.FetchFailed(c.now, *n.fetching, d.HasArg("damaged"))
	case "forget":
		n.engine.ForgetSnapshot(n.engine.Snapshot())
	}
	n.flush()
}

func (n *clusterNode) makeSnapshot() {
	index := n.engine.Applicable()
	term, err := n.Term(index)
	if err != nil || index == 0 {
		return
	}
	ref := SnapshotRef{Name: "snapshot of " + string(n.self.ID), Last: LogID{Term: term, Index: index}}
	n.c.snapshots[ref] = n.membershipAt(index)
	n.engine.SetSnapshot(ref)
	n.c.say("%s has a snapshot of %v: %v", n.self.ID, ref.Last, n.c.snapshots[ref].Membership)
}

func (n *clusterNode) purgeLog(to uint64) {
	if to = min(to, n.engine.PurgeFloor()); to > n.base.Index {
		id := n.log[to-n.base.Index-1].ID
		n.purge(id)
		n.engine.Purged(id)
	}
	n.c.say("%s has purged up to %v", n.self.ID, n.base)
}

// purge removes the entries up to one that the log has, at once durably.
func (n *clusterNode) purge(upTo LogID) {
	n.baseMembership = n.membershipAt(upTo.Index)
	cut := func(log []Entry) []Entry {
		return slices.Clone(log[min(int(upTo.Index-n.base.Index), len(log)):])
	}
	n.log, n.durable.log, n.base = cut(n.log), cut(n.durable.log), upTo
}

// install resets the log to a snapshot, or purges it if it has the snapshot's last entry.
func (n *clusterNode) install(ref SnapshotRef) {
	c := n.c
	n.fetching = nil
	if current, ok := n.engine.Installing(); !ok || current != ref {
		c.say("%s does not want the snapshot of %v any more", n.self.ID, ref.Last)
		return
	}
	if !n.engine.MayInstall(ref.Last) {
		c.say("%s does not need the snapshot of %v any more", n.self.ID, ref.Last)
		n.engine.FetchFailed(c.now, ref, false)
		return
	}
	membership, ok := c.snapshots[ref]
	if !ok {
		c.Fatalf("nobody made a snapshot of %v", ref.Last)
	}
	if term, err := n.Term(ref.Last.Index); err == nil && term == ref.Last.Term {
		n.purge(ref.Last)
	} else {
		n.log, n.base = nil, ref.Last
	}
	n.durable.log = slices.Clone(n.log)
	for _, w := range n.unsynced { // what they appended is on disk with the reset log, or gone; what they voted is not
		w.Append, w.TruncateFrom = nil, 0
	}
	n.baseMembership = membership
	n.engine.Installed(c.now, ref.Last, membership, SettingAt{})
	c.say("%s has installed the snapshot of %v", n.self.ID, ref.Last)
}
