package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/objectstore"
)

// defaultMaxEntryBytes fits below the payload limit that a NATS server has by default, 1 MiB. It is for backups that do not say how large
// their cluster's entries could be.
const defaultMaxEntryBytes = 1<<20 - node.EntryEnvelope

func (a *app) snapshotRestoreCommand() *cobra.Command {
	var f offlineFlags
	var link clientFlags
	var file, clusterID, entrySize string
	cmd := &cobra.Command{
		Use:   "restore",
		Short: "Begin a new cluster with the state of a snapshot",
		Long: `Make an empty directory the first node of a new cluster whose state is that of a backup file (--file), or, when every disk is
lost, of the newest snapshot in the object store. What was written after that snapshot is lost. The new cluster has an id of its
own, and its log begins well after the snapshot's, so that no revision is used twice. A restore that was cut off is run again with the same snapshot.

The largest entry, a key and its value, is fixed for the new cluster's life as what the old one's was: the snapshot has it, except one of an
older version (then it is what fits below the NATS server's max_payload, 1 MiB with --file). Nodes join only where the NATS server takes that
and 4 KiB more; with --max-entry-bytes it is what suits the NATS server, larger or smaller. What is in the state already stays in it.

Afterwards start the node with quorate serve, without --members, and add others with quorate serve --join and quorate member add.`,
		Example: `  quorate snapshot restore --cluster prod --id n1 --dir /var/lib/quorate --file backup.quorate
  quorate snapshot restore --cluster prod --id n1 --dir /var/lib/quorate --nats nats://10.0.0.1:4222
  quorate snapshot restore --cluster prod --id n1 --dir /var/lib/quorate --file backup.quorate --max-entry-bytes 4MiB`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := f.check(); err != nil {
				return err
			}
			ctx := cmd.Context()
			var from objectstore.Blobs
			var ref storage.SnapshotRef
			wanted, err := parseMaxEntryBytes(entrySize)
			if err != nil {
				return err
			}
			var room int64 // what the NATS server takes, if there is one
			if file != "" {
				backup, openErr := objectstore.OpenFile(vfs.Default, file)
				if openErr != nil {
					return fmt.Errorf("backup file %s: %w", file, openErr)
				}
				defer func() { err = errors.Join(err, backup.Close()) }()
				from, ref = backup, backup.Ref()
			} else {
				l, connectErr := link.connect(ctx, "restore")
				if connectErr != nil {
					return connectErr
				}
				defer func() {
					err = l.explain(err)
					l.conn.Close()
				}()
				room = l.conn.MaxPayload()
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
			manifest, err := objectstore.Open(ctx, from, ref)
			if err != nil {
				return err
			}
			limit := a.maxEntryBytes(wanted, manifest.MaxEntryBytes, room)
			survivor, store, err := f.open()
			if err != nil {
				return err
			}
			r, err := node.RestoreFrom(ctx, survivor, store, from, ref, limit)
			if err != nil {
				return err
			}
			if a.output == outputJSON {
				shown := showRecovery(r, true)
				shown.MaxEntryBytes = limit
				return a.printJSON(shown)
			}
			_, err = fmt.Fprintf(a.stdout, "%s is the only member of a new cluster (id %s) with the state of index %d. Its log begins after index %d. "+
				"Its largest entry has %d bytes.\nStart it: quorate serve --cluster %s --id %s --dir %s\n",
				f.id, r.New, r.Last.Index, r.Begin.Index, limit, f.cluster, f.id, f.dir)
			return err
		},
	}
	link.add(cmd.Flags())
	cmd.Flags().StringVar(&f.id, "id", "", "name of the node")
	cmd.Flags().StringVar(&f.dir, "dir", "", "directory of the node, empty or not there yet")
	cmd.Flags().StringVar(&file, "file", "", "backup file, in place of the object store")
	cmd.Flags().StringVar(&clusterID, "cluster-id", "", "id of the lost cluster, if the object store has several of that name")
	cmd.Flags().StringVar(&entrySize, "max-entry-bytes", "", "largest key and value of the new cluster, as 1MiB (default: as in the old one)")
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

// parseMaxEntryBytes reads a size like 1MiB, or gives 0 for none.
func parseMaxEntryBytes(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	const smallest, largest = node.MinEntryBytes, 64<<20 - node.EntryEnvelope // what a cluster takes at the least, and NATS at the most
	n, err := humanize.ParseBytes(s)
	if err != nil || n < smallest || n > largest {
		return 0, usagef("--max-entry-bytes %q must be a size from 1KiB to %d bytes, 64 MiB less 4 KiB", s, largest)
	}
	return n, nil
}

// maxEntryBytes decides on the new cluster's largest entry: what is wanted, or what the old one had, or what the NATS server has room for;
// 0 of one says that it is not known. It says what the user may not expect.
func (a *app) maxEntryBytes(wanted, had uint64, room int64) uint64 {
	limit := cmp.Or(wanted, had)
	if limit == 0 {
		limit = defaultMaxEntryBytes
		if room > 0 {
			limit = uint64(max(room-node.EntryEnvelope, node.MinEntryBytes))
		}
		fmt.Fprintf(a.stderr, "quorate: the snapshot does not say how large an entry of its cluster may be: it is %d bytes in the new one; choose with --max-entry-bytes\n", limit)
	}
	if wanted > 0 && wanted < had {
		fmt.Fprintf(a.stderr, "quorate: the old cluster took entries of %d bytes: values that are in the state may be too large to be written again\n", had)
	}
	if needs := int64(limit) + node.EntryEnvelope; room > 0 && room < needs {
		fmt.Fprintf(a.stderr, "quorate: the NATS server takes messages of %d bytes, and the new cluster's largest entry needs %d: nobody can join until its max_payload is raised; or restore again, into another directory, with --max-entry-bytes %d\n",
			room, needs, room-node.EntryEnvelope)
	}
	return limit
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
