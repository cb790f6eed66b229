package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node"
	"quorate/node/raft"
)

// subjectPrefix is the first token of every subject of Quorate.
const subjectPrefix = "quorate"

// clusterView is what the nodes of a cluster say of themselves at about one moment.
type clusterView struct {
	cluster string
	// answers in ascending order of node ids.
	answers []node.Status
	// silent are the members that did not answer, in ascending order. Somebody named them.
	silent []raft.NodeID
}

// errNobody says that no node of a cluster answers.
var errNobody = errors.New("no node answers")

// minimumPatience is how long the others are waited for at least, once a first node has answered.
const minimumPatience = 250 * time.Millisecond

// gatherStatus asks all nodes of the cluster, or the one that is named, how they are. It returns as soon as all known members have
// answered, else a little after the first answer; the more time that one took, the longer.
// Error: errNobody, when the time is over or NATS knows that nobody listens; errInterrupted.
func gatherStatus(ctx context.Context, l *link, only raft.NodeID) (clusterView, error) {
	subject := fmt.Sprintf("%s.%s.status", subjectPrefix, l.cluster)
	if only != "" {
		subject = fmt.Sprintf("%s.%s.node.%s.status", subjectPrefix, l.cluster, only)
	}
	inbox := l.conn.NewRespInbox()
	replies, err := l.conn.SubscribeSync(inbox)
	if err != nil {
		return clusterView{}, fmt.Errorf("ask for the status: %w", err)
	}
	defer func() { _ = replies.Unsubscribe() }() // the connection is closed soon; late answers are nobody's
	asked := time.Now()
	if err := l.conn.PublishRequest(subject, inbox, nil); err != nil {
		return clusterView{}, fmt.Errorf("ask for the status: %w", err)
	}

	answers := map[raft.NodeID]node.Status{}
	wait := ctx
	for only == "" || len(answers) == 0 {
		m, err := replies.NextMsgWithContext(wait)
		switch {
		case err == nil:
		case errors.Is(context.Cause(ctx), errInterrupted):
			return clusterView{}, fmt.Errorf("wait for the status: %w", context.Cause(ctx)) // nothing is known of who has not answered
		case errors.Is(err, nats.ErrNoResponders), wait.Err() != nil && (wait != ctx || ctx.Err() != nil):
			return newClusterView(l.cluster, answers, nobodyError(l, only, err))
		default:
			return clusterView{}, fmt.Errorf("wait for the status: %w", err)
		}
		if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
			return newClusterView(l.cluster, answers, nobodyError(l, only, nats.ErrNoResponders))
		}
		var s node.Status
		if err := json.Unmarshal(m.Data, &s); err != nil || s.ID == "" {
			return clusterView{}, fmt.Errorf("an answer on %s is not a node's status: %.100q", subject, m.Data)
		}
		if len(answers) == 0 {
			var cancel context.CancelFunc
			wait, cancel = context.WithTimeout(ctx, max(minimumPatience, 4*time.Since(asked)))
			defer cancel()
		}
		answers[s.ID] = s
		if len(expectedNodes(answers)) == len(answers) && knowsMembers(answers) {
			break
		}
	}
	return newClusterView(l.cluster, answers, nil)
}

func nobodyError(l *link, only raft.NodeID, cause error) error {
	if only != "" {
		return l.explain(withStatus(statusUnavailable, fmt.Errorf("node %s of cluster %s: %w at %s: %w: does it run, and is its id right? `quorate status` shows the nodes that run",
			only, l.cluster, errNobody, l.at(), cause)))
	}
	return l.explain(withStatus(statusUnavailable, fmt.Errorf("cluster %s: %w at %s: %w: does a node of it run there, and is the cluster's name right? --cluster or $QUORATE_CLUSTER name another",
		l.cluster, errNobody, l.at(), cause)))
}

// newClusterView puts the answers in order. It fails with nobody if there is none.
func newClusterView(cluster string, answers map[raft.NodeID]node.Status, nobody error) (clusterView, error) {
	if len(answers) == 0 {
		return clusterView{}, nobody
	}
	v := clusterView{cluster: cluster}
	for _, id := range expectedNodes(answers) {
		if s, ok := answers[id]; ok {
			v.answers = append(v.answers, s)
		} else {
			v.silent = append(v.silent, id)
		}
	}
	return v, nil
}

// expectedNodes are all nodes that are known from the answers, in ascending order: those that answered, the members that the newest
// configuration lists, and those that the genesis waits for.
func expectedNodes(answers map[raft.NodeID]node.Status) []raft.NodeID {
	var ids []raft.NodeID
	var newest node.Status
	for id, s := range answers {
		ids = append(ids, id)
		ids = append(ids, s.WaitingFor...)
		if len(s.Members) > 0 && (len(newest.Members) == 0 || s.CommittedIndex > newest.CommittedIndex) {
			newest = s
		}
	}
	for _, m := range newest.Members {
		ids = append(ids, m.ID)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// knowsMembers reports whether an answer tells the members, without which one cannot say that all have answered.
func knowsMembers(answers map[raft.NodeID]node.Status) bool {
	for _, s := range answers {
		if len(s.Members) > 0 {
			return true
		}
	}
	return false
}

// leader returns the node that leads: of those that say they do, the one with the highest term. ok is false if none serves.
func (v clusterView) leader() (leader node.Status, ok bool) {
	var leaders []node.Status
	for _, s := range v.answers {
		if s.Role == node.RoleLeader && s.Serving {
			leaders = append(leaders, s)
		}
	}
	if len(leaders) == 0 {
		return node.Status{}, false
	}
	return slices.MaxFunc(leaders, func(a, b node.Status) int { return cmp.Compare(a.Term, b.Term) }), true
}

// denies reports whether a node says itself that it does not lead in a term, or has seen a later one.
func (v clusterView) denies(id raft.NodeID, term uint64) bool {
	return slices.ContainsFunc(v.answers, func(s node.Status) bool {
		return s.ID == id && s.Role != node.RoleLeader && s.Term >= term
	})
}

// newest is the answer of the highest term. There is at least one.
func (v clusterView) newest() node.Status {
	return slices.MaxFunc(v.answers, func(a, b node.Status) int { return cmp.Compare(a.Term, b.Term) })
}

// committed is the highest commit index that a node knows of.
func (v clusterView) committed() uint64 {
	var highest uint64
	for _, s := range v.answers {
		highest = max(highest, s.CommittedIndex)
	}
	return highest
}
