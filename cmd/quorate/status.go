package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"quorate/node"
	"quorate/node/raft"
)

// shownCluster is the JSON form of a cluster's status.
type shownCluster struct {
	Cluster     string        `json:"cluster"`
	Leader      raft.NodeID   `json:"leader,omitempty"`
	Nodes       []node.Status `json:"nodes"`
	Unreachable []raft.NodeID `json:"unreachable,omitempty"`
}

func (a *app) statusCommand() *cobra.Command {
	var client clientFlags
	var only string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the nodes of a cluster are",
		Long: `Show how the nodes of a cluster are. LAG is how many committed entries a node has not applied yet. A member that does
not answer is shown as unreachable.

With --output json: cluster, leader, nodes (each as the node says it, on the NATS subject quorate.CLUSTER.status) and
unreachable.

Exit status 3 if no node answers.`,
		Example: `  quorate status
  quorate status --node n2
  quorate status --cluster orders --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if only != "" && !natsToken.MatchString(only) {
				return usagef("node id %q must be 1 to 64 letters, digits, '-' or '_'", only)
			}
			l, err := client.connect(cmd.Context(), "status")
			if err != nil {
				return err
			}
			defer l.conn.Close()
			ctx, cancel := within(cmd.Context(), client.timeout)
			defer cancel()
			view, err := gatherStatus(ctx, l, raft.NodeID(only))
			if err != nil {
				return err
			}
			if only != "" {
				view.silent = nil // they were not asked
			}
			return a.printStatus(view)
		},
	}
	client.add(cmd.Flags())
	cmd.Flags().StringVar(&only, "node", "", "ask only the node with this id")
	return cmd
}

func (a *app) printStatus(view clusterView) error {
	leader, led := view.leader()
	if a.json() {
		return a.printJSON(shownCluster{Cluster: view.cluster, Leader: leader.ID, Nodes: view.answers, Unreachable: view.silent})
	}
	var text strings.Builder
	switch witness := view.newest(); {
	case led:
		leases := ""
		if leader.Setting.Lease > 0 {
			leases = ", " + describeSetting(leader.Setting)
		}
		fmt.Fprintf(&text, "cluster %s, leader %s in term %d%s\n\n", view.cluster, leader.ID, leader.Term, leases)
	case witness.Leader != "" && !view.denies(witness.Leader, witness.Term):
		fmt.Fprintf(&text, "cluster %s, leader %s in term %d, says %s%s\n\n", view.cluster, witness.Leader, witness.Term, witness.ID, view.keptWaiting())
	default:
		fmt.Fprintf(&text, "cluster %s, no leader%s\n\n", view.cluster, view.keptWaiting())
	}
	writeStatusTable(&text, view)
	for _, s := range view.answers {
		for _, remark := range remarks(s) {
			fmt.Fprintf(&text, "\n%s: %s", s.ID, remark)
		}
	}
	return a.printf("%s\n", strings.TrimRight(text.String(), "\n"))
}

// keptWaiting says of a cluster with leases that no node is known to lead how long it may take.
func (v clusterView) keptWaiting() string {
	longest := node.Setting{}
	for _, s := range v.answers {
		if s.Setting.Lease > longest.Lease {
			longest = s.Setting
		}
	}
	if longest.Lease == 0 {
		return ""
	}
	return fmt.Sprintf(", %s: until that time after the leader was last heard of nobody else can lead", describeSetting(longest))
}

// longLease is what nobody wants a cluster to be without a leader for.
const longLease = 10 * time.Second

func writeStatusTable(w io.Writer, view clusterView) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "NODE\tROLE\tTERM\tLEADER\tCOMMIT\tAPPLIED\tLAG\tNATS\tWARNINGS")
	committed := view.committed()
	rows := map[raft.NodeID]string{}
	for _, s := range view.answers {
		rows[s.ID] = fmt.Sprintf("%s\t%s\t%d\t%s\t%d\t%d\t%d\t%s\t%d", s.ID, s.Role, s.Term, orDash(string(s.Leader)),
			s.CommittedIndex, s.AppliedIndex, committed-min(committed, s.AppliedIndex), describeNATS(s.NATS), len(remarks(s)))
	}
	for _, id := range view.silent {
		rows[id] = fmt.Sprintf("%s\tunreachable\t-\t-\t-\t-\t-\t-\t-", id)
	}
	for _, id := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprintln(table, rows[id])
	}
	_ = table.Flush() // to memory
}

func describeNATS(s node.NATSStatus) string {
	if !s.Connected {
		return "disconnected"
	}
	return orDash(s.URL)
}

// speakLess are the members for whose sake a leader's cluster does not use all that the leader speaks.
func speakLess(s node.Status) []raft.NodeID {
	var ids []raft.NodeID
	for _, m := range s.Members {
		if m.Speaks != nil && !s.Speaks.Within(*m.Speaks) {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// remarks are what an operator should read about a node.
func remarks(s node.Status) []string {
	var said []string
	if s.Error != "" {
		said = append(said, "failed: "+s.Error)
	}
	if behind := speakLess(s); len(behind) > 0 {
		said = append(said, fmt.Sprintf("speaks %v; the cluster uses %v until %s does too", s.Speaks, s.Versions, joinIDs(behind)))
	}
	if len(s.WaitingFor) > 0 {
		said = append(said, fmt.Sprintf("waits for an answer of %s, to found the cluster", joinIDs(s.WaitingFor)))
	}
	if s.Snapshot.Fetching > 0 {
		said = append(said, fmt.Sprintf("fetches the snapshot of index %d: %s of %s", s.Snapshot.Fetching,
			humanize.IBytes(uint64(s.Snapshot.FetchedBytes)), humanize.IBytes(uint64(s.Snapshot.FetchBytes))))
	}
	if s.Snapshot.InstallTook > 0 && s.OldestEntryAge > 0 && s.OldestEntryAge < 2*s.Snapshot.InstallTook {
		said = append(said, fmt.Sprintf("the log goes back %v only, and the last snapshot took %v to install: keep more (--keep-entries)",
			s.OldestEntryAge.Round(time.Second), s.Snapshot.InstallTook.Round(time.Millisecond)))
	}
	if s.Role == node.RoleLeader && s.QuorumAckAge > time.Second {
		said = append(said, fmt.Sprintf("leads, but a quorum last answered %v ago", s.QuorumAckAge.Round(time.Millisecond)))
	}
	if s.Role == node.RoleLeader && s.Setting.Lease > longLease {
		said = append(said, fmt.Sprintf("with %s nobody leads for that time once this leader is lost: a good lease is the election timeout (quorate setting set --lease 500ms)",
			describeSetting(s.Setting)))
	}
	return append(said, s.Warnings...)
}

func joinIDs(ids []raft.NodeID) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = string(id)
	}
	return strings.Join(names, ", ")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
