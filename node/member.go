package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"quorate/node/raft"
	"quorate/transport"
)

// MembershipChange is the membership that somebody wants, whole.
type MembershipChange struct {
	// Voters and Learners wanted. A member in neither is removed.
	Voters   []raft.NodeID `json:"voters"`
	Learners []raft.NodeID `json:"learners,omitempty"`
	// Joining are those of them that have just been started and must answer, members or not: of the other members, those that do not answer are
	// taken for what they are members as, in case they come back.
	Joining []raft.NodeID `json:"joining,omitempty"`
	// If, when not nil, is the log id of the membership that the caller saw (Membership.ID): the change is made only if that one is
	// still in force, through all its steps.
	If *raft.LogID `json:"if,omitempty"`
	// Force leaves out the checks that new voters are caught up, and that a majority of them answers now. It can cost the cluster its
	// quorum.
	Force bool `json:"force,omitempty"`
}

// Membership is the configuration in force on a node.
type Membership struct {
	// ID is the log id of its entry, or zero for the genesis.
	ID       raft.LogID    `json:"id"`
	Voters   []raft.NodeID `json:"voters"`
	Learners []raft.NodeID `json:"learners,omitempty"`
	// Outgoing are the voters of the set that a change under way replaces; empty otherwise.
	Outgoing []raft.NodeID `json:"outgoing,omitempty"`
}

// Membership returns the configuration in force here. It does not block.
func (n *Node) Membership() Membership {
	s := n.watch.state.Load()
	m := Membership{ID: s.membershipID}
	if s.membership == nil {
		return m
	}
	for _, member := range s.membership.Members {
		if member.Voter {
			m.Voters = append(m.Voters, member.ID)
		}
		if member.Outgoing {
			m.Outgoing = append(m.Outgoing, member.ID)
		}
		if member.Learner() {
			m.Learners = append(m.Learners, member.ID)
		}
	}
	return m
}

// ChangeMembership brings the cluster from any set of members to any other: it adds new members as learners, waits until those that are to
// vote have caught up, changes the voters by joint consensus, and returns the log id of the final configuration when that is committed.
// Writes go on meanwhile. A node that does not lead hands it on to the leader.
//
// A new member must be running: started with Config.Join, on an empty directory. So must one that lost its disk: it is removed, and then
// added as what it is now. One that is named in Joining answers, or the change is refused.
//
// Errors: *raft.ChangedError, raft.ErrChangePending, *raft.NotCaughtUpError, *raft.QuorumAtRiskError, *raft.ReplacedError,
// *UnreachableError, *NotLeaderError; when the context ends half-way, what is reached stays, and the same call goes on from there.
func (n *Node) ChangeMembership(ctx context.Context, change MembershipChange) (raft.LogID, error) {
	var id raft.LogID
	ctx, span := traceWork(ctx, n.cfg.Telemetry, "raft.change_membership", onCaller)
	err := n.onLeader(ctx, "membership", change, &id, func() (err error) {
		id, err = n.changeMembership(ctx, change)
		return err
	})
	span.End(time.Time{}, err)
	if err != nil {
		return id, fmt.Errorf("change membership: %w", err)
	}
	return id, nil
}

// AddLearner adds a member that gets the log but does not vote, and returns when that is committed; it does not wait until the new
// member has caught up.
func (n *Node) AddLearner(ctx context.Context, id raft.NodeID) (raft.LogID, error) {
	m := n.Membership()
	return n.ChangeMembership(ctx, MembershipChange{Voters: m.Voters, Learners: append(m.Learners, id), If: &m.ID})
}

// UnreachableError says that a node that is to be added does not answer.
type UnreachableError struct {
	Node raft.NodeID
	// Member: it is one already.
	Member bool  `json:",omitempty"`
	Err    error `json:"-"`
}

func (e *UnreachableError) Error() string {
	if e.Member {
		return fmt.Sprintf("%s is a member, and does not answer (%v): start it, or, if its directory is lost, start it on an empty one as a node that joins (quorate serve --join)", e.Node, e.Err)
	}
	return fmt.Sprintf("%s does not answer (%v): start it first, on an empty directory, as a node that joins (quorate serve --join)", e.Node, e.Err)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// changeMembership does it on the leader.
func (n *Node) changeMembership(ctx context.Context, change MembershipChange) (raft.LogID, error) {
	current, err := n.leading(ctx)
	if err != nil {
		return raft.LogID{}, err
	}
	if change.If != nil && *change.If != current.ID {
		return raft.LogID{}, &raft.ChangedError{Current: current.ID}
	}
	if len(change.Voters) == 0 {
		return raft.LogID{}, fmt.Errorf("%w: a cluster without voters decides nothing", ErrConfig)
	}
	lost, err := n.lost(ctx, current.targets, slices.Concat(change.Voters, change.Learners), change.Joining)
	if err != nil {
		return raft.LogID{}, err
	}
	if len(lost) > 0 {
		n.logger.Warn("members that lost their disks are removed, to be added again", "members", joinIDs(lost))
		if current, err = n.removeLost(ctx, current, lost, change.Force); err != nil {
			return raft.LogID{}, fmt.Errorf("remove %s, which lost its disk: %w", joinIDs(lost), err)
		}
	}
	wanted := raft.Change{If: &current.ID, Force: change.Force}
	var fresh []raft.Peer
	find := func(ids []raft.NodeID) (peers []raft.Peer, err error) {
		for _, id := range ids {
			member, ok := current.Membership.Find(id)
			if !ok {
				if member.Peer, err = n.meet(ctx, id); err != nil {
					return nil, err
				}
				fresh = append(fresh, member.Peer)
			}
			peers = append(peers, member.Peer)
		}
		return peers, nil
	}
	if wanted.Voters, err = find(change.Voters); err != nil {
		return raft.LogID{}, err
	}
	freshVoters := slices.Clone(fresh)
	if wanted.Learners, err = find(change.Learners); err != nil {
		return raft.LogID{}, err
	}
	if len(freshVoters) > 0 && !change.Force {
		// They learn first, and vote when they have caught up: nothing waits for them meanwhile.
		learn := raft.Change{
			Voters: current.Membership.Voters(), Learners: append(current.Membership.Learners(), freshVoters...), If: &current.ID,
		}
		id, err := n.appendChange(ctx, learn)
		if err != nil {
			return id, err
		}
		wanted.If = &id
	}
	return n.promote(ctx, wanted)
}

// led is what a leader knows of its cluster.
type led struct {
	raft.MembershipAt
	targets []raft.TargetStatus
}

// leading returns the configuration in force and how its targets stand, if this node leads.
func (n *Node) leading(ctx context.Context) (led, error) {
	return inCore(ctx, n, func(c *raftCore) (led, error) {
		if c.engine.Role() != raft.Leader {
			return led{}, c.typed(raft.ErrNotLeading)
		}
		return led{c.engine.MembershipAt(), c.engine.Targets()}, nil
	})
}

// lost returns which of the members that are wanted lost their disks: nobody answers with the directory that they are members with, but a node of
// their name with another one, which can join, does. They are asked, since what the leader has last heard may be older than the loss.
func (n *Node) lost(ctx context.Context, targets []raft.TargetStatus, wanted, joining []raft.NodeID) (lost []raft.NodeID, err error) {
	for _, t := range targets {
		if !slices.Contains(wanted, t.Peer.ID) {
			continue
		}
		if t.Reachable && n.call(ctx, t.Peer, &transport.PingRequest{}).Err == nil {
			continue
		}
		if !slices.Contains(joining, t.Peer.ID) {
			answer := n.call(ctx, raft.Peer{ID: t.Peer.ID}, &transport.HelloRequest{Cluster: n.cfg.Cluster})
			if hello, ok := answer.Response.(*transport.HelloResponse); answer.Err != nil || !ok || hello.From == t.Peer {
				continue
			}
		}
		now, err := n.meet(ctx, t.Peer.ID)
		var silent *UnreachableError
		switch {
		case errors.As(err, &silent):
			silent.Member = true
			return nil, err
		case err != nil:
			return nil, err
		case now != t.Peer:
			lost = append(lost, t.Peer.ID)
		}
	}
	return lost, nil
}

// removeLost removes members that lost their disks, so that their names are free, and returns the configuration without them.
func (n *Node) removeLost(ctx context.Context, current led, lost []raft.NodeID, force bool) (led, error) {
	gone := func(p raft.Peer) bool { return slices.Contains(lost, p.ID) }
	without := raft.Change{
		Voters:   slices.DeleteFunc(current.Membership.Voters(), gone),
		Learners: slices.DeleteFunc(current.Membership.Learners(), gone),
		If:       &current.ID, Force: force,
	}
	id, err := n.promote(ctx, without)
	if err != nil {
		return led{}, err
	}
	after, err := n.leading(ctx)
	if err == nil && after.ID != id {
		err = &raft.ChangedError{Current: after.ID}
	}
	return after, err
}

// promote makes the change when its new voters have caught up, and returns when it is committed and no longer joint.
func (n *Node) promote(ctx context.Context, wanted raft.Change) (raft.LogID, error) {
	retry := time.NewTicker(n.cfg.HeartbeatInterval)
	defer retry.Stop()
	for {
		id, err := n.appendChange(ctx, wanted)
		var behind *raft.NotCaughtUpError
		if !errors.As(err, &behind) {
			if err != nil {
				return id, err
			}
			return n.settled(ctx, id)
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return raft.LogID{}, fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
}

// settled waits until the configuration that a change led to is committed. The joint one is ended by the leader itself.
func (n *Node) settled(ctx context.Context, id raft.LogID) (_ raft.LogID, err error) {
	ctx, span := traceWork(ctx, n.cfg.Telemetry, "raft.membership.settle", onCaller)
	defer func() { span.End(time.Time{}, err) }()
	status, err := n.waitState(ctx, func(s *coreState) bool {
		return s.membershipID.Index >= id.Index && s.membershipID.Index <= s.committed && !s.membership.Joint()
	})
	if err != nil {
		return id, fmt.Errorf("%w: the change is under way and will be finished: %w", ErrUnknownOutcome, err)
	}
	return status.membershipID, nil
}

// appendChange appends one configuration and returns when it is committed and applied.
func (n *Node) appendChange(ctx context.Context, change raft.Change) (raft.LogID, error) {
	return n.appendOwn(ctx, "raft.membership", func(c *raftCore) (raft.LogID, error) {
		id, err := c.engine.ChangeMembership(time.Now(), change)
		if err != nil {
			err = c.typed(err)
		}
		return id, err
	})
}

// meet finds out which directory a new member has, and sees that it knows the cluster.
func (n *Node) meet(ctx context.Context, id raft.NodeID) (raft.Peer, error) {
	if !token.MatchString(string(id)) {
		return raft.Peer{}, fmt.Errorf("%w: node id %q must be 1 to 64 letters, digits, '-' or '_'", ErrConfig, id)
	}
	const patience = 3 * time.Second // for a node that is just starting
	begun := time.Now()
	retry := time.NewTicker(100 * time.Millisecond)
	defer retry.Stop()
	answer := n.call(ctx, raft.Peer{ID: id}, &transport.HelloRequest{Cluster: n.cfg.Cluster})
	for errors.Is(answer.Err, transport.ErrNoResponders) && time.Since(begun) < patience && ctx.Err() == nil {
		<-retry.C
		answer = n.call(ctx, raft.Peer{ID: id}, &transport.HelloRequest{Cluster: n.cfg.Cluster})
	}
	hello, ok := answer.Response.(*transport.HelloResponse)
	if answer.Err != nil || !ok {
		return raft.Peer{}, &UnreachableError{Node: id, Err: answer.Err}
	}
	genesis := n.gather.known()
	if hello.Genesis != nil {
		if !hello.Genesis.Equal(*genesis) {
			return raft.Peer{}, fmt.Errorf("%s belongs to another cluster (id %s): give it an empty directory", id, hello.Genesis.ClusterID())
		}
		return hello.From, nil
	}
	if room := uint64(max(0, hello.MaxPayloadBytes)); room < genesis.MaxEntryBytes+EntryEnvelope {
		return raft.Peer{}, fmt.Errorf("the NATS server of %s takes messages of %d bytes, but the cluster's largest entry needs %d: raise its max_payload",
			id, room, genesis.MaxEntryBytes+EntryEnvelope)
	}
	answer = n.call(ctx, raft.Peer{ID: id}, &transport.AdoptRequest{Genesis: *genesis})
	adopted, ok := answer.Response.(*transport.AdoptResponse)
	switch {
	case answer.Err != nil || !ok:
		return raft.Peer{}, &UnreachableError{Node: id, Err: answer.Err}
	case adopted.Refusal != "":
		return raft.Peer{}, fmt.Errorf("%s cannot join: %s", id, adopted.Refusal)
	}
	return adopted.From, nil
}

// call is a call that waits.
func (n *Node) call(ctx context.Context, to raft.Peer, req transport.Request) transport.Answer {
	answers := make(chan transport.Answer, 1)
	n.links.transport.Call(to, req, 2*time.Second, func(a transport.Answer) { answers <- a })
	select {
	case a := <-answers:
		return a
	case <-ctx.Done():
		return transport.Answer{Err: ctx.Err()}
	}
}
