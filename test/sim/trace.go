package sim

import (
	"fmt"
	"strings"
	"time"

	"quorate/node/raft"
)

// traceLines is how many steps a failure shows.
const traceLines = 150

// trace remembers the last steps and hashes all of them. Text is made only when somebody reads it.
type trace struct {
	hash uint64
	ring [traceLines]traceLine
	n    int
}

type traceLine struct {
	at         time.Duration
	what       string
	node, peer int
	a, b       uint64
	subject    any
}

// add notes a step. subject is for the reader only and is not changed afterwards; a and b are hashed.
func (t *trace) add(at time.Duration, what string, node, peer int, a, b uint64, subject any) {
	h := t.hash
	for _, v := range [...]uint64{uint64(at), uint64(len(what)), uint64(what[0]), uint64(node), uint64(peer), a, b} {
		h = (h ^ v) * 0x9E3779B97F4A7C15
		h ^= h >> 29
	}
	t.hash = h
	t.ring[t.n%traceLines] = traceLine{at: at, what: what, node: node, peer: peer, a: a, b: b, subject: subject}
	t.n++
}

// String returns the last steps, one a line.
func (t *trace) String() string {
	var s strings.Builder
	for i := max(0, t.n-traceLines); i < t.n; i++ {
		line := t.ring[i%traceLines]
		fmt.Fprintf(&s, "%12v ", line.at)
		if line.node >= 0 {
			fmt.Fprintf(&s, "n%d ", line.node+1)
		}
		s.WriteString(line.what)
		if line.peer >= 0 {
			fmt.Fprintf(&s, " n%d", line.peer+1)
		}
		if line.subject != nil {
			s.WriteString(": " + describe(line.subject))
		} else if line.a != 0 || line.b != 0 {
			fmt.Fprintf(&s, " %d %d", line.a, line.b)
		}
		s.WriteByte('\n')
	}
	return s.String()
}

func describe(subject any) string {
	switch v := subject.(type) {
	case *raft.AppendRequest:
		s := fmt.Sprintf("append term %d prev %v commit %d entries [", v.Term, v.Prev, v.Commit)
		for i, e := range v.Entries {
			if i > 0 {
				s += " "
			}
			s += e.ID.String()
			if e.Kind == raft.EntryMembership {
				s += "=" + e.Membership.String()
			}
		}
		return s + "]"
	case *raft.AppendResponse:
		return fmt.Sprintf("append answer term %d status %d matched %v hint %v", v.Term, v.Status, v.Matched, v.Hint)
	case *raft.VoteRequest:
		return fmt.Sprintf("vote request term %d last %v pre %v", v.Term, v.Last, v.Pre)
	case *raft.VoteResponse:
		return fmt.Sprintf("vote answer term %d granted %v pre %v", v.Term, v.Granted, v.Pre)
	case *raft.Write:
		s := fmt.Sprintf("write %d", v.Seq)
		if v.Vote != nil {
			s += " vote " + v.Vote.String()
		}
		if v.TruncateFrom != 0 {
			s += fmt.Sprintf(" truncate from %d", v.TruncateFrom)
		}
		if n := len(v.Append); n > 0 {
			s += fmt.Sprintf(" append %v to %v", v.Append[0].ID, v.Append[n-1].ID)
		}
		return s
	case nil:
		return ""
	default:
		return fmt.Sprint(v)
	}
}
