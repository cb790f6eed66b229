package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/raft"
	"quorate/transport"
)

// offlineFlags name a node's directory that no process is using.
type offlineFlags struct{ cluster, id, dir string }

func (f *offlineFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.cluster, "cluster", "", "name of the cluster")
	flags.StringVar(&f.id, "id", "", "name of the node")
	flags.StringVar(&f.dir, "dir", "", "directory of the node")
	for _, name := range []string{"cluster", "id", "dir"} {
		_ = cmd.MarkFlagRequired(name) // the flag exists: it was added above
	}
}

// check refuses names that no node could be started with.
func (f *offlineFlags) check() error {
	if err := transport.CheckName(f.cluster); err != nil {
		return usagef("--cluster: %w", err)
	}
	if err := transport.CheckName(f.id); err != nil {
		return usagef("--id: %w", err)
	}
	if f.dir == "" {
		return usagef("--dir is empty")
	}
	return nil
}

// open opens the directory's state. The state is closed by whoever is given it.
func (f *offlineFlags) open() (node.Survivor, *kv.Store, error) {
	if err := checkMemberDir(f.dir); err != nil {
		return node.Survivor{}, nil, err
	}
	logger := slog.New(slog.DiscardHandler)
	store, err := kv.OpenStore(filepath.Join(f.dir, stateDir), kv.StoreOptions{Logger: logger})
	if err != nil {
		return node.Survivor{}, nil, err
	}
	return node.Survivor{
		Cluster: f.cluster, ID: raft.NodeID(f.id), Dir: filepath.Join(f.dir, logDir), CommandVersion: kv.CommandVersion, Logger: logger,
	}, store, nil
}

type shownRecovery struct {
	Last       uint64 `json:"last_index"`
	Applied    uint64 `json:"applied_index"`
	Membership string `json:"membership"`
	Old        string `json:"old_cluster_id"`
	New        string `json:"new_cluster_id,omitempty"`
	Begin      uint64 `json:"log_begins_after"`
	Discard    bool   `json:"log_discarded,omitempty"` // see node.Recovery
	Done       bool   `json:"done"`
	// MaxEntryBytes is set by a restore, which chooses it.
	MaxEntryBytes uint64 `json:"max_entry_bytes,omitempty"`
}

func showRecovery(r node.Recovery, done bool) shownRecovery {
	s := shownRecovery{
		Last: r.Last.Index, Applied: r.Applied.Index, Membership: r.Membership, Old: r.Old.String(), Begin: r.Begin.Index, Discard: r.Discard, Done: done,
	}
	if done {
		s.New = r.New.String()
	}
	return s
}

func (a *app) recoverCommand() *cobra.Command {
	var f offlineFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Begin a new cluster with the directory of a survivor",
		Long: `When a majority of the voters is lost for good, nothing can be decided any more. recover makes the directory of one
survivor, whose process must be stopped, the first node of a new cluster: with its state and all of its log, a cluster id and an
incarnation of its own, and itself as the only member. Its log goes on well beyond the old one, so that no revision is used twice.

What may be lost: writes that were acknowledged by the lost majority and had not reached this node. What may come to life: writes at
the end of its log that were never acknowledged. So choose the survivor with the greatest last index (recover without --yes
shows it and changes nothing).

Afterwards start the node with quorate serve, without --members, and add others, each on an empty directory, with
quorate serve --join and quorate member add. Nodes of the old cluster cannot come back into the new one.`,
		Example: `  quorate recover --cluster prod --id n1 --dir /var/lib/quorate
  quorate recover --cluster prod --id n1 --dir /var/lib/quorate --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			if _, err := os.Stat(filepath.Join(f.dir, logDir)); err != nil { // open would make one
				return fmt.Errorf("--dir %s is no node's directory: %w", f.dir, err)
			}
			survivor, store, err := f.open()
			if err != nil {
				return err
			}
			r, err := node.Recover(cmd.Context(), survivor, store, !yes)
			if err != nil {
				return err
			}
			if a.output == outputJSON {
				err = a.printJSON(showRecovery(r, yes))
			} else if yes {
				_, err = fmt.Fprintf(a.stdout, "%s is now the only member of a new cluster (id %s). Its log goes on after index %d.\nStart it: quorate serve --cluster %s --id %s --dir %s\n",
					f.id, r.New, r.Begin.Index, f.cluster, f.id, f.dir)
			} else {
				var discard string
				if r.Discard {
					discard = " (that of a snapshot: what the log had in its place is discarded)"
				}
				_, err = fmt.Fprintf(a.stdout, "%s was a member of %s (cluster id %s). Its log ends at index %d, its state is at %d%s.\n"+
					"It can become the only member of a new cluster. Writes that others acknowledged and this node does not have will be lost.\n",
					f.id, r.Membership, r.Old, r.Last.Index, r.Applied.Index, discard)
			}
			if err == nil && !yes {
				err = withStatus(statusFalse, errors.New("nothing was changed: say --yes to do it"))
			}
			return err
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}
