package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"quorate/node"
	"quorate/node/raft"
)

// changeTimeout is how long a change of members may take by default: a new one fetches a snapshot first.
const changeTimeout = 2 * time.Minute

func (a *app) memberCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "member",
		Short: "Show and change the members of a cluster",
		Long: `Show and change who the members of a cluster are. Every change is made only if the membership is still the one that the
command saw; voters change by joint consensus, while writes go on. A node that is to be added runs already, started with
quorate serve --join on an empty directory; so does a member that lost its disk, which member add brings back.`,
		Example: `  quorate member ls
  quorate member add n4 && quorate member remove n2`,
	}
	cmd.AddCommand(a.memberLsCommand(),
		a.memberChange("add ID", "Add a voter, or a learner", `  quorate member add n4
  quorate member add n4 --learner`, 1, func(m node.Membership, ids []raft.NodeID, learner, _ bool) (node.MembershipChange, error) {
			return added(m, ids[0], learner)
		}, "learner"),
		a.memberChange("promote ID", "Make a learner a voter", "  quorate member promote n4", 1,
			func(m node.Membership, ids []raft.NodeID, _, _ bool) (node.MembershipChange, error) {
				if !slices.Contains(m.Learners, ids[0]) && !slices.Contains(m.Voters, ids[0]) {
					return node.MembershipChange{}, usagef("%s is no member: add it (quorate member add %s)", ids[0], ids[0])
				}
				change, err := added(m, ids[0], false)
				change.Joining = nil // it is a member, and is waited for
				return change, err
			}),
		a.memberChange("remove ID...", "Remove members", `  quorate member remove n2
  quorate member remove n2 --retain`, -1, removed, "retain"),
		a.memberChange("replace OLD NEW", "Put a new node in the place of another, in one step", "  quorate member replace n2 n4", 2, replaced),
	)
	return cmd
}

func added(m node.Membership, id raft.NodeID, learner bool) (node.MembershipChange, error) {
	change := node.MembershipChange{Joining: []raft.NodeID{id}, Voters: without(m.Voters, id), Learners: without(m.Learners, id)}
	if learner {
		change.Learners = append(change.Learners, id)
	} else {
		change.Voters = append(change.Voters, id)
	}
	return change, nil
}

// goneError says that nodes that are to be removed are no members. The change that comes with it is for the others.
type goneError struct {
	ids, voters []raft.NodeID
	// all: there are no others.
	all bool
}

func (e *goneError) Error() string {
	if len(e.ids) > 1 {
		return fmt.Sprintf("%s are no members: the voters are %s", joinIDs(e.ids), joinIDs(e.voters))
	}
	return fmt.Sprintf("%s is no member: the voters are %s", joinIDs(e.ids), joinIDs(e.voters))
}

// removed with retain leaves voters and learners alike as learners: the command may be given again when it has done that already.
func removed(m node.Membership, ids []raft.NodeID, _, retain bool) (node.MembershipChange, error) {
	change := node.MembershipChange{Voters: m.Voters, Learners: m.Learners}
	var gone []raft.NodeID
	for _, id := range ids {
		if !slices.Contains(m.Voters, id) && !slices.Contains(m.Learners, id) {
			gone = append(gone, id)
			continue
		}
		change.Voters, change.Learners = without(change.Voters, id), without(change.Learners, id)
		if retain {
			change.Learners = append(change.Learners, id)
		}
	}
	if len(change.Voters) == 0 {
		return change, usagef("no voter would be left: a cluster without voters decides nothing")
	}
	if len(gone) > 0 {
		return change, usagef("%w", &goneError{ids: gone, voters: m.Voters, all: len(gone) == len(ids)})
	}
	return change, nil
}

func replaced(m node.Membership, ids []raft.NodeID, _, _ bool) (node.MembershipChange, error) {
	change := node.MembershipChange{Voters: m.Voters, Learners: m.Learners}
	from, to := ids[0], ids[1]
	switch votes := slices.Contains(m.Voters, to); {
	case votes && !slices.Contains(m.Voters, from) && !slices.Contains(m.Learners, from):
		return change, nil // done already
	case !slices.Contains(m.Voters, from):
		return change, usagef("%s is no voter: the voters are %s", from, joinIDs(m.Voters))
	case votes:
		return change, usagef("%s votes already: in the place of %s it would leave a voter fewer (quorate member remove %s does that; a node that lost its disk comes back by quorate member add %s)", to, from, from, from)
	}
	change.Voters, change.Learners = append(without(m.Voters, from), to), without(m.Learners, to)
	return change, nil
}

func without(ids []raft.NodeID, id raft.NodeID) []raft.NodeID {
	return slices.DeleteFunc(slices.Clone(ids), func(other raft.NodeID) bool { return other == id })
}

// memberChange makes a command that changes the membership. options are the names of the flags that it has.
func (a *app) memberChange(use, short, example string, args int, plan func(m node.Membership, ids []raft.NodeID, learner, retain bool) (node.MembershipChange, error), options ...string) *cobra.Command {
	var client clientFlags
	var learner, retain, force bool
	cmd := &cobra.Command{
		Use: use, Short: short, Example: example,
		Long: short + `.

It returns when the change is committed. When the leader changes meanwhile, or somebody else changes the members, it is planned anew from
the membership that there is then. Exit status 1 if the change is refused; 3 if time ran out: the change may then be half done, and the
same command goes on.`,
		Args: cobra.ExactArgs(max(args, 1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			ids := make([]raft.NodeID, len(names))
			for i, name := range names {
				if !natsToken.MatchString(name) {
					return usagef("node id %q must be 1 to 64 letters, digits, '-' or '_'", name)
				}
				ids[i] = raft.NodeID(name)
			}
			return client.withAdmin(cmd.Context(), "member", func(ctx context.Context, admin *node.Admin) error {
				after, err := changeMembers(ctx, admin, force, func(m node.Membership) (node.MembershipChange, error) {
					return plan(m, ids, learner, retain)
				})
				if err != nil {
					return memberStatus(err)
				}
				if a.json() {
					return a.printJSON(after)
				}
				return a.printf("voters %s%s\n", joinIDs(after.Voters), learnersOf(after))
			})
		},
	}
	if args < 0 {
		cmd.Args = cobra.MinimumNArgs(1)
	}
	client.add(cmd.Flags())
	_ = cmd.Flags().Set("timeout", changeTimeout.String()) // a valid value
	cmd.Flags().Lookup("timeout").DefValue = changeTimeout.String()
	cmd.Flags().BoolVar(&force, "force", false, "do it although new voters have not caught up, or a majority of the voters does not answer: it can cost the cluster its quorum")
	if slices.Contains(options, "learner") {
		cmd.Flags().BoolVar(&learner, "learner", false, "let it learn only, and not vote")
	}
	if slices.Contains(options, "retain") {
		cmd.Flags().BoolVar(&retain, "retain", false, "keep them as learners")
	}
	return cmd
}

func learnersOf(m node.Membership) string {
	if len(m.Learners) == 0 {
		return ""
	}
	return ", learners " + joinIDs(m.Learners)
}

// memberStatus gives the refusals of a change their exit status.
func memberStatus(err error) error {
	var changed *raft.ChangedError
	var risk *raft.QuorumAtRiskError
	var behind *raft.NotCaughtUpError
	var replaced *raft.ReplacedError
	var unreachable *node.UnreachableError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, node.ErrUnknownOutcome):
	case errors.As(err, &changed), errors.Is(err, raft.ErrChangePending), errors.As(err, &risk), errors.As(err, &behind), errors.As(err, &replaced), errors.As(err, &unreachable):
		return withStatus(statusFalse, err)
	}
	return err
}

// withAdmin runs f with an operator's access to the cluster, for as long as --timeout says.
func (f *clientFlags) withAdmin(ctx context.Context, purpose string, use func(context.Context, *node.Admin) error) error {
	l, err := f.connect(ctx, purpose)
	if err != nil {
		return err
	}
	defer l.conn.Close()
	ctx, cancel := within(ctx, f.timeout)
	defer cancel()
	err = l.explain(use(ctx, node.NewAdmin(l.conn, subjectPrefix, l.cluster)))
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, node.ErrUnknownOutcome) {
		return withStatus(statusUnavailable, err)
	}
	return err
}

// shownMembers is the JSON form of the members: an object, so that more can be told later.
type shownMembers struct {
	Members []shownMember `json:"members"`
}

// shownMember is the JSON form of a member.
type shownMember struct {
	ID          raft.NodeID `json:"id"`
	Role        string      `json:"role"`
	Incarnation string      `json:"incarnation"`
	Matched     uint64      `json:"matched"`
	Lag         uint64      `json:"lag"`
	Reachable   bool        `json:"reachable"`
}

func (a *app) memberLsCommand() *cobra.Command {
	var client clientFlags
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the members, as the leader sees them",
		Long: `List the members, as the leader sees them. LAG is how many entries of the leader's log a member does not have on its disk yet.
"outgoing" votes in the set that a change under way replaces.

Exit status 3 if nobody leads.`,
		Example: "  quorate member ls\n  quorate member ls --output json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := within(cmd.Context(), client.timeout)
			defer cancel()
			leader, _, err := client.findLeader(ctx, false)
			if err != nil {
				return err
			}
			members := []shownMember{}
			for _, m := range leader.Members {
				s := shownMember{ID: m.ID, Incarnation: m.Incarnation, Matched: m.Matched, Lag: leader.LastIndex - min(m.Matched, leader.LastIndex), Reachable: m.Reachable}
				switch {
				case m.ID == leader.ID:
					s.Role = "leader"
				case m.Outgoing && !m.Voter:
					s.Role = "outgoing"
				case m.Voter:
					s.Role = "voter"
				default:
					s.Role = "learner"
				}
				members = append(members, s)
			}
			if a.json() {
				return a.printJSON(shownMembers{Members: members})
			}
			var text strings.Builder
			table := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
			fmt.Fprintln(table, "NODE\tROLE\tINCARNATION\tMATCHED\tLAG\tREACHABLE")
			for _, m := range members {
				fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%t\n", m.ID, m.Role, m.Incarnation, m.Matched, m.Lag, m.Reachable)
			}
			_ = table.Flush() // to memory
			return a.printf("%s", text.String())
		},
	}
	client.add(cmd.Flags())
	return cmd
}

func (a *app) leaderTransferCommand() *cobra.Command {
	var client clientFlags
	cmd := &cobra.Command{
		Use:   "transfer [ID]",
		Short: "Hand leadership to another voter",
		Long: `Hand leadership to a voter, or to the one that has caught up most. Writes wait for a moment and are not lost.

Exit status 1 if that node cannot take over; the leader then goes on.`,
		Example: "  quorate leader transfer\n  quorate leader transfer n2",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			to := raft.NodeID(strings.Join(args, ""))
			if len(args) > 0 && !natsToken.MatchString(args[0]) {
				return usagef("node id %q must be 1 to 64 letters, digits, '-' or '_'", args[0])
			}
			return client.withAdmin(cmd.Context(), "transfer", func(ctx context.Context, admin *node.Admin) error {
				err := admin.TransferLeadership(ctx, to)
				var refused *raft.TransferError
				if errors.As(err, &refused) {
					return withStatus(statusFalse, err)
				}
				if err != nil {
					return err
				}
				leader, err := admin.Leader(ctx)
				if err != nil {
					return err
				}
				if a.json() {
					return a.printJSON(map[string]raft.NodeID{"leader": leader})
				}
				return a.printf("%s\n", leader)
			})
		},
	}
	client.add(cmd.Flags())
	return cmd
}
