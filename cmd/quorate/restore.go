package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/objectstore"
)

// defaultMaxEntryBytes fits below the payload limit that a NATS server has by default, 1 MiB.
const defaultMaxEntryBytes = 1<<20 - 4096

func (a *app) snapshotRestoreCommand() *cobra.Command {
	var f offlineFlags
	var link clientFlags
	var file, clusterID string
	cmd := &cobra.Command{
		Use:   "restore",
		Short: "Begin a new cluster with the state of a snapshot",
		Long: `Make an empty directory the first node of a new cluster whose state is that of a backup file (--file), or, when every disk is
lost, of the newest snapshot in the object store. What was written after that snapshot is lost. The new cluster has an id of its
own, and its log begins well after the snapshot's, so that no revision is used twice.

Afterwards start the node with quorate serve, without --members, and add others with quorate serve --join and quorate member add.`,
		Example: `  quorate snapshot restore --cluster prod --id n1 --dir /var/lib/quorate --file backup.quorate
  quorate snapshot restore --cluster prod --id n1 --dir /var/lib/quorate --nats nats://10.0.0.1:4222`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := f.check(); err != nil {
				return err
			}
			ctx := cmd.Context()
			var from objectstore.Blobs
			var ref storage.SnapshotRef
			limit := uint64(defaultMaxEntryBytes)
			if file != "" {
				backup, err := objectstore.OpenFile(vfs.Default, file)
				if err != nil {
					return fmt.Errorf("backup file %s: %w", file, err)
				}
				defer func() { err = errors.Join(err, backup.Close()) }()
				from, ref = backup, backup.Ref()
			} else {
				l, err := link.connect(ctx, "restore")
				if err != nil {
					return err
				}
				defer l.conn.Close()
				limit = uint64(l.conn.MaxPayload() - 4096)
				bucket := subjectPrefix + "-" + f.cluster
				id, err := a.lostCluster(func() ([]raft.ClusterID, error) { return objectstore.Clusters(ctx, l.conn, bucket) }, clusterID)
				if err != nil {
					return err
				}
				if from, err = objectstore.NewBucket(l.conn, bucket, id, objectstore.BucketOptions{}); err != nil {
					return err
				}
				if ref, err = newestWhole(ctx, from); err != nil {
					return err
				}
			}
			survivor, store, err := f.open()
			if err != nil {
				return err
			}
			r, err := node.RestoreFrom(ctx, survivor, store, from, ref, limit)
			if err != nil {
				return err
			}
			if a.output == outputJSON {
				return a.printJSON(showRecovery(r, true))
			}
			_, err = fmt.Fprintf(a.stdout, "%s is the only member of a new cluster (id %s) with the state of index %d. Its log begins after index %d.\nStart it: quorate serve --cluster %s --id %s --dir %s\n",
				f.id, r.New, r.Last.Index, r.Begin.Index, f.cluster, f.id, f.dir)
			return err
		},
	}
	link.add(cmd.Flags())
	cmd.Flags().StringVar(&f.id, "id", "", "name of the node")
	cmd.Flags().StringVar(&f.dir, "dir", "", "directory of the node, empty or not there yet")
	cmd.Flags().StringVar(&file, "file", "", "backup file, in place of the object store")
	cmd.Flags().StringVar(&clusterID, "cluster-id", "", "id of the lost cluster, if the object store has several of that name")
	for _, name := range []string{"id", "dir"} {
		_ = cmd.MarkFlagRequired(name)
	}
	cmd.PreRunE = func(*cobra.Command, []string) error {
		cluster, err := clusterOrDefault(link.cluster)
		f.cluster = cluster
		return err
	}
	return cmd
}

// lostCluster returns the one cluster id, or the one that was named.
func (a *app) lostCluster(list func() ([]raft.ClusterID, error), named string) (raft.ClusterID, error) {
	ids, err := list()
	if err != nil {
		return raft.ClusterID{}, err
	}
	if named == "" && len(ids) == 1 {
		return ids[0], nil
	}
	for _, id := range ids {
		if id.String() == named {
			return id, nil
		}
	}
	return raft.ClusterID{}, fmt.Errorf("the object store has snapshots of cluster ids %v: name one with --cluster-id", ids)
}

// newestWhole returns the newest snapshot of which nothing is missing or damaged.
func newestWhole(ctx context.Context, from objectstore.Blobs) (storage.SnapshotRef, error) {
	refs, _, err := objectstore.List(ctx, from)
	if err != nil {
		return storage.SnapshotRef{}, err
	}
	var damage error
	for _, ref := range refs {
		if err := objectstore.Verify(ctx, from, ref, objectstore.Retry{}); err == nil {
			return ref, nil
		} else if ctx.Err() != nil {
			return storage.SnapshotRef{}, err
		} else {
			damage = errors.Join(damage, fmt.Errorf("snapshot of index %d: %w", ref.Last.Index, err))
		}
	}
	return storage.SnapshotRef{}, errors.Join(errors.New("the object store has no whole snapshot"), damage)
}
