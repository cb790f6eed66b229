package raft

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestScenarios plays the stories in testdata. Run with -rewrite to write down what happens now, then read it.
//
//	cluster n1 n2 n3 [outgoing=(n4,n1)] [learners=(n5)] [in-flight=N] [message=BYTES]
//	node n1 [log=(1,1,2)] [term=3] [vote=n2] [commit=2]      its disk, before it starts; log by terms
//	start [n1 ...]             runs nodes, all if none is named
//	stop n1 ...                ends processes; what is not durable is lost, the network says "no responders"
//	isolate n1 ... | connect   cuts nodes off, all that is under way from and to them included; heals all
//	hide n1 from=n2            requests of n2 to n1 get "no responders", although n1 lives
//	elect n1                   n1 stands and gets all messages until it leads, perhaps in a second try
//	stand n1                   lets n1's election timeout pass
//	wait for=50ms [n1 ...]     lets time pass for some nodes, all if none is named
//	deliver [from=n1] [to=n2] [only=heartbeat] [most=N] [quiet | brief]
//	drop [from=n1] [to=n2] [only=heartbeat]
//	keep | replay              remembers what is under way; posts it again
//	propose n1 [count=N]       read n1
//	configure n1 voters=(n1,n2) [outgoing=(...)]    appends a configuration of present members as it is
//	new n4 ...                 makes empty nodes, not members yet
//	change n1 voters=(n1,n2) [learners=(n4)] [if=1.2] [force]
//	transfer n1 [to=n2]
//	snapshot n1                makes one of all that n1 may apply, for everyone to fetch
//	purge n1 [to=N]            purges the log as far as allowed
//	install n1                 the snapshot that n1 fetches has arrived
//	lose n1 [damaged]          it cannot be had
//	forget n1                  n1's snapshot is gone
//	run for=1s [verbose]       lets time pass and delivers all, in steps of 25 ms; tells only what changed
//	slow n1 | fast n1          writes are durable only when it is said, or at once again
//	sync n1 [writes=N]         makes all writes durable, or the oldest
//	logs | status | members
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			s := &scenario{}
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				return s.play(t, d)
			})
		})
	}
}

type scenario struct {
	c    *cluster
	kept []*letter
}

func (s *scenario) play(t *testing.T, d *datadriven.TestData) string {
	if d.Cmd == "cluster" {
		s.cluster(t, d)
		return ""
	}
	c := s.c
	c.T = t
	switch d.Cmd {
	case "node":
		s.disk(t, d)
	case "start", "stop", "isolate", "wait", "stand", "elect", "propose", "read", "slow", "sync", "fast", "configure", "change", "transfer", "snapshot", "purge", "install", "lose", "forget":
		s.each(t, d)
	case "new":
		for _, arg := range d.CmdArgs {
			var i uint64
			if _, err := fmt.Sscanf(arg.Key, "n%d", &i); err != nil {
				d.Fatalf(t, "node name %q", arg.Key)
			}
			c.nodes = append(c.nodes, &clusterNode{c: c, self: Peer{ID: NodeID(arg.Key), Incarnation: Incarnation(i)}})
		}
	case "run":
		s.run(t, d)
		if !d.HasArg("verbose") {
			return brief(c.told())
		}
	case "members":
		return c.members()
	case "connect":
		clear(c.isolated)
		clear(c.hidden)
	case "hide":
		var from string
		d.ScanArgs(t, "from", &from)
		c.hidden[[2]NodeID{NodeID(from), NodeID(d.CmdArgs[0].Key)}] = true
	case "deliver":
		most := math.MaxInt
		d.MaybeScanArgs(t, "most", &most)
		n := c.deliver(s.match(t, d), most)
		if d.HasArg("quiet") {
			c.lines.Reset()
			return fmt.Sprintf("%d messages\n", n)
		}
		if d.HasArg("brief") {
			return brief(c.told())
		}
	case "drop":
		n := 0
		match := s.match(t, d)
		kept := c.mail[:0:0]
		for _, l := range c.mail {
			if match(l) {
				n++
			} else {
				kept = append(kept, l)
			}
		}
		c.mail = kept
		return fmt.Sprintf("%d messages\n", n)
	case "keep":
		s.kept = append([]*letter(nil), c.mail...)
		return fmt.Sprintf("%d messages\n", len(s.kept))
	case "replay":
		c.mail = append(c.mail, s.kept...)
	case "logs":
		return c.logs()
	case "status":
		return c.status()
	default:
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
	return c.told()
}

func (s *scenario) cluster(t *testing.T, d *datadriven.TestData) {
	m := &Membership{}
	seen := map[NodeID]int{}
	add := func(names []string, set func(*Member)) {
		for _, name := range names {
			id := NodeID(name)
			if _, ok := seen[id]; !ok {
				seen[id] = len(m.Members)
				var i uint64
				if _, err := fmt.Sscanf(name, "n%d", &i); err != nil {
					d.Fatalf(t, "node name %q", name)
				}
				m.Members = append(m.Members, Member{Peer: Peer{ID: id, Incarnation: Incarnation(i)}})
			}
			set(&m.Members[seen[id]])
		}
	}
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "outgoing":
			add(arg.Vals, func(member *Member) { member.Outgoing = true })
		case "learners":
			add(arg.Vals, func(*Member) {})
		case "in-flight", "message":
		default:
			add([]string{arg.Key}, func(member *Member) { member.Voter = true })
		}
	}
	if err := m.Validate(); err != nil {
		d.Fatalf(t, "%v", err)
	}
	s.c = newCluster(t, m)
	d.MaybeScanArgs(t, "in-flight", &s.c.replicator.MaxInFlight)
	d.MaybeScanArgs(t, "message", &s.c.replicator.MaxMessageBytes)
}

// disk sets what is on a node's disk before it starts.
func (s *scenario) disk(t *testing.T, d *datadriven.TestData) {
	n := s.c.node(NodeID(d.CmdArgs[0].Key))
	var vote string
	for _, arg := range d.CmdArgs[1:] {
		switch arg.Key {
		case "log":
			for i, val := range arg.Vals {
				var term uint64
				if _, err := fmt.Sscan(val, &term); err != nil {
					d.Fatalf(t, "%v", err)
				}
				n.durable.log = append(n.durable.log, Entry{ID: LogID{Term: term, Index: uint64(i) + 1}, Kind: EntryCommand})
				n.durable.vote.Term = term
			}
		case "term":
			d.ScanArgs(t, "term", &n.durable.vote.Term)
		case "vote":
			d.ScanArgs(t, "vote", &vote)
			n.durable.vote.For = NodeID(vote)
		case "commit":
			d.ScanArgs(t, "commit", &n.commit)
			n.applied = n.commit
		}
	}
}

// each does something to the nodes named, or to all.
func (s *scenario) each(t *testing.T, d *datadriven.TestData) {
	c := s.c
	if d.Cmd == "wait" {
		var length string
		d.ScanArgs(t, "for", &length)
		duration, err := time.ParseDuration(length)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		c.now = c.now.Add(duration)
	}
	var nodes []*clusterNode
	for _, arg := range d.CmdArgs {
		if strings.HasPrefix(arg.Key, "n") && len(arg.Vals) == 0 {
			nodes = append(nodes, c.node(NodeID(arg.Key)))
		}
	}
	if len(nodes) == 0 {
		nodes = c.nodes
	}
	for _, n := range nodes {
		s.do(t, d, n)
	}
}

func (s *scenario) do(t *testing.T, d *datadriven.TestData, n *clusterNode) {
	c := s.c
	switch d.Cmd {
	case "start":
		if !n.up {
			n.start()
		}
	case "stop":
		n.stop()
	case "isolate":
		c.isolated[n.self.ID] = true
		kept := c.mail[:0:0]
		for _, l := range c.mail {
			if l.from != n.self.ID && l.to != n.self.ID {
				kept = append(kept, l)
			}
		}
		c.mail = kept
	case "wait":
		n.tick()
	case "stand":
		s.stand(t, d, n)
	case "elect":
		for tries := 0; n.engine.Role() != Leader; tries++ {
			if tries == 5 {
				d.Fatalf(t, "%s is not elected\n%s", n.self.ID, c.told())
			}
			s.stand(t, d, n)
			ours := func(l *letter) bool { return l.from == n.self.ID || l.to == n.self.ID }
			for n.engine.Role() != Leader && c.deliver(ours, 1) > 0 {
			}
		}
		c.lines.Reset()
		c.say("%s is %s", n.self.ID, n.state())
	case "propose":
		count := 1
		d.MaybeScanArgs(t, "count", &count)
		entries := make([]Entry, count)
		for i := range entries {
			entries[i].Kind = EntryCommand
		}
		if id, ok := n.engine.Propose(c.now, entries); ok {
			c.say("%s proposes %v", n.self.ID, id)
		} else {
			c.say("%s is not the leader", n.self.ID)
		}
		n.flush()
	case "configure":
		s.configure(t, d, n)
	case "change", "transfer":
		s.ask(t, d, n)
	case "snapshot", "purge", "install", "lose", "forget":
		s.snapshots(t, d, n)
	case "read":
		c.reads++
		if !n.engine.Read(c.now, c.reads) {
			c.say("%s is not the leader", n.self.ID)
		}
		n.flush()
	case "slow":
		n.slow = true
	case "sync", "fast":
		n.slow = n.slow && d.Cmd == "sync"
		writes := len(n.unsynced)
		d.MaybeScanArgs(t, "writes", &writes)
		if writes > 0 {
			n.sync(writes)
			n.flush()
		}
	}
}

// stand lets time pass until the node stands for election.
func (s *scenario) stand(t *testing.T, d *datadriven.TestData, n *clusterNode) {
	for range 200 {
		if at := n.engine.Deadline(); at.After(s.c.now) {
			s.c.now = at
		}
		n.tick()
		if n.engine.Role() != Follower {
			return
		}
	}
	d.Fatalf(t, "%s does not stand for election", n.self.ID)
}

func (s *scenario) configure(t *testing.T, d *datadriven.TestData, n *clusterNode) {
	next := &Membership{Members: append([]Member(nil), n.engine.Membership().Members...)}
	for i := range next.Members {
		member := &next.Members[i]
		member.Voter, member.Outgoing = false, false
		for _, arg := range d.CmdArgs {
			for _, val := range arg.Vals {
				if NodeID(val) == member.ID {
					member.Voter = member.Voter || arg.Key == "voters"
					member.Outgoing = member.Outgoing || arg.Key == "outgoing"
				}
			}
		}
	}
	if err := next.Validate(); err != nil {
		d.Fatalf(t, "%v", err)
	}
	id, _ := n.engine.Propose(s.c.now, []Entry{{Kind: EntryMembership, Membership: next}})
	s.c.say("%s proposes %v: %v", n.self.ID, id, next)
	n.flush()
}

// match selects letters by the command's arguments.
func (s *scenario) match(t *testing.T, d *datadriven.TestData) func(*letter) bool {
	var from, to, only string
	d.MaybeScanArgs(t, "from", &from)
	d.MaybeScanArgs(t, "to", &to)
	d.MaybeScanArgs(t, "only", &only)
	return func(l *letter) bool {
		return (from == "" || NodeID(from) == l.from) && (to == "" || NodeID(to) == l.to) && strings.HasPrefix(l.text, only)
	}
}

// logs draws each node's log by the terms of its entries, with a bar after what is committed.
func (c *cluster) logs() string {
	var s strings.Builder
	for _, n := range c.nodes {
		fmt.Fprintf(&s, "%s ", n.self.ID)
		if n.base.Index > 0 {
			fmt.Fprintf(&s, " (%v)", n.base)
			if n.base.Index == n.commit {
				s.WriteString(" |")
			}
		}
		for _, e := range n.log {
			fmt.Fprintf(&s, " %d", e.ID.Term)
			if e.ID.Index == n.commit {
				s.WriteString(" |")
			}
		}
		s.WriteByte('\n')
	}
	return s.String()
}

func (c *cluster) status() string {
	var s strings.Builder
	for _, n := range c.nodes {
		if !n.up {
			fmt.Fprintf(&s, "%s is down\n", n.self.ID)
			continue
		}
		e := n.engine
		fmt.Fprintf(&s, "%s %v, %v, follows %q, log up to %v, committed %d, applicable %d\n",
			n.self.ID, e.Role(), e.Vote(), e.Leader().ID, e.LastLogID(), e.Commit(), e.Applicable())
	}
	return s.String()
}
