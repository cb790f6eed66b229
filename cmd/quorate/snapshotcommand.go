package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/objectstore"
)

func (a *app) snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Take, list, save and restore snapshots",
		Long: `Snapshots of the state are kept in the NATS Object Store, in the bucket quorate-CLUSTER, and without JetStream at the node that
built them. A cluster takes them by itself, to shorten its logs. save writes one into a file, as a backup.`,
		Example: `  quorate snapshot take
  quorate snapshot save backup.quorate && quorate snapshot verify backup.quorate`,
	}
	cmd.AddCommand(a.snapshotTakeCommand(), a.snapshotLsCommand(), a.snapshotSaveCommand(), a.snapshotVerifyCommand(), a.snapshotRestoreCommand())
	return cmd
}

// snapshotTimeout is how long a snapshot may take by default: some gigabytes on a slow disk.
const snapshotTimeout = 10 * time.Minute

// shownSnapshot is the JSON form of a snapshot.
type shownSnapshot struct {
	Name  string `json:"name"`
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
	Bytes uint64 `json:"bytes"`
	// Time when it was complete, and the nodes that keep it, unless it is in the object store. Only in a list.
	Time  *time.Time    `json:"time,omitempty"`
	Nodes []raft.NodeID `json:"nodes,omitempty"`
}

// shownSnapshots is the JSON form of several.
type shownSnapshots struct {
	Snapshots []shownSnapshot `json:"snapshots"`
	// Unseen are nodes that could not be asked what they keep.
	Unseen []raft.NodeID `json:"unseen,omitempty"`
}

func (s shelved) shown() shownSnapshot {
	shown := showSnapshot(s.Ref)
	when := s.When.UTC().Truncate(time.Second)
	shown.Time, shown.Nodes = &when, s.nodes
	return shown
}

func showSnapshot(ref storage.SnapshotRef) shownSnapshot {
	return shownSnapshot{Name: ref.Name, Index: ref.Last.Index, Term: ref.Last.Term, Bytes: ref.Bytes}
}

func (a *app) snapshotTakeCommand() *cobra.Command {
	var client clientFlags
	cmd := &cobra.Command{
		Use:   "take",
		Short: "Take a snapshot now",
		Long: `Take a snapshot of the state as it is now, and return when it is complete in the object store, or without JetStream at the node that
leads. Nothing is taken twice: the same state gives the same snapshot.`,
		Example: "  quorate snapshot take",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return client.withAdmin(cmd.Context(), "snapshot", func(ctx context.Context, admin *node.Admin) error {
				ref, err := admin.Snapshot(ctx)
				if err != nil {
					return err
				}
				if a.json() {
					return a.printJSON(showSnapshot(ref))
				}
				return a.printf("snapshot of index %d, %s\n", ref.Last.Index, humanize.IBytes(ref.Bytes))
			})
		},
	}
	client.add(cmd.Flags())
	_ = cmd.Flags().Set("timeout", snapshotTimeout.String()) // a valid value
	cmd.Flags().Lookup("timeout").DefValue = snapshotTimeout.String()
	return cmd
}

func (a *app) snapshotLsCommand() *cobra.Command {
	var client clientFlags
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the snapshots",
		Long: `List the cluster's snapshots, the newest first: those in the object store, and those that nodes keep because they built them while
there was no JetStream. Exit status 1 if some are damaged; each is named.`,
		Example: "  quorate snapshot ls",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return client.withShelf(cmd.Context(), func(ctx context.Context, from *shelf) error {
				ctx, cancel := within(ctx, client.timeout)
				defer cancel()
				found, err := from.list(ctx)
				if err != nil {
					return err
				}
				if remark := found.remark(); remark != "" {
					fmt.Fprintln(a.stderr, remark)
				}
				err = a.printSnapshots(found)
				for _, d := range found.damaged {
					err = errors.Join(err, withStatus(statusFalse, d))
				}
				return err
			})
		},
	}
	client.add(cmd.Flags())
	return cmd
}

func (a *app) printSnapshots(found listing) error {
	shown := make([]shownSnapshot, len(found.snapshots))
	for i, one := range found.snapshots {
		shown[i] = one.shown()
	}
	if a.json() {
		return a.printJSON(shownSnapshots{Snapshots: shown, Unseen: found.unseen})
	}
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "INDEX\tTERM\tSIZE\tTIME\tWHERE\tNAME")
	for _, s := range shown {
		where := "object store"
		if len(s.Nodes) > 0 {
			where = joinIDs(s.Nodes)
		}
		fmt.Fprintf(table, "%d\t%d\t%s\t%s\t%s\t%s\n", s.Index, s.Term, humanize.IBytes(s.Bytes), s.Time.Format(time.RFC3339), where, s.Name)
	}
	_ = table.Flush() // to memory
	return a.printf("%s", text.String())
}

func (a *app) snapshotVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "verify FILE",
		Short:   "Check a backup file",
		Long:    "Read a whole backup file and check it. It needs no server. Exit status 1 if it is damaged.",
		Example: "  quorate snapshot verify backup.quorate",
		Args:    takesPath("FILE"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			file, err := objectstore.OpenFile(vfs.Default, args[0])
			if err != nil {
				return damagedStatus(fmt.Errorf("backup file %s: %w", args[0], err))
			}
			defer func() { err = errors.Join(err, file.Close()) }()
			if err := objectstore.Verify(cmd.Context(), file, file.Ref(), objectstore.Retry{}); err != nil {
				return damagedStatus(fmt.Errorf("backup file %s: %w", args[0], err))
			}
			if a.json() {
				return a.printJSON(showSnapshot(file.Ref()))
			}
			return a.printf("snapshot of index %d, %s: whole\n", file.Ref().Last.Index, humanize.IBytes(file.Ref().Bytes))
		},
	}
}

func damagedStatus(err error) error {
	var damaged *objectstore.DamagedError
	if errors.As(err, &damaged) || errors.Is(err, objectstore.ErrNotBackup) {
		return withStatus(statusFalse, err)
	}
	return err
}
