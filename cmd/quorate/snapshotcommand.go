package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

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
		Long: `Snapshots of the state are kept in the NATS Object Store, in the bucket quorate-CLUSTER. A cluster takes them by itself, to
shorten its logs. save writes one into a file, as a backup.`,
		Example: `  quorate snapshot take
  quorate snapshot save backup.quorate && quorate snapshot verify backup.quorate`,
	}
	cmd.AddCommand(a.snapshotTakeCommand(), a.snapshotLsCommand(), a.snapshotSaveCommand(), a.snapshotVerifyCommand(), a.snapshotRestoreCommand())
	return cmd
}

// shownSnapshot is the JSON form of a snapshot.
type shownSnapshot struct {
	Name  string `json:"name"`
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
	Bytes uint64 `json:"bytes"`
}

// shownSnapshots is the JSON form of several.
type shownSnapshots struct {
	Snapshots []shownSnapshot `json:"snapshots"`
}

func showSnapshot(ref storage.SnapshotRef) shownSnapshot {
	return shownSnapshot{Name: ref.Name, Index: ref.Last.Index, Term: ref.Last.Term, Bytes: ref.Bytes}
}

func (a *app) snapshotTakeCommand() *cobra.Command {
	var client clientFlags
	cmd := &cobra.Command{
		Use:   "take",
		Short: "Take a snapshot now",
		Long: `Take a snapshot of the state as it is now, and return when it is complete in the object store. Nothing is taken twice: the same
state gives the same snapshot.`,
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
	_ = cmd.Flags().Set("timeout", changeTimeout.String()) // a valid value
	cmd.Flags().Lookup("timeout").DefValue = changeTimeout.String()
	return cmd
}

func (a *app) snapshotLsCommand() *cobra.Command {
	var client clientFlags
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "List the snapshots in the object store",
		Long:    "List the cluster's snapshots in the object store, the newest first. Exit status 1 if some are damaged; each is named.",
		Example: "  quorate snapshot ls",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return client.withBucket(cmd.Context(), func(ctx context.Context, bucket objectstore.Blobs) error {
				refs, damaged, err := objectstore.List(ctx, bucket)
				if err != nil && !errors.Is(err, objectstore.ErrNotFound) {
					return err
				}
				shown := make([]shownSnapshot, len(refs))
				for i, ref := range refs {
					shown[i] = showSnapshot(ref)
				}
				if a.json() {
					err = a.printJSON(shownSnapshots{Snapshots: shown})
				} else {
					var text strings.Builder
					table := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
					fmt.Fprintln(table, "INDEX\tTERM\tSIZE\tNAME")
					for _, s := range shown {
						fmt.Fprintf(table, "%d\t%d\t%s\t%s\n", s.Index, s.Term, humanize.IBytes(s.Bytes), s.Name)
					}
					_ = table.Flush() // to memory
					err = a.printf("%s", text.String())
				}
				for _, d := range damaged {
					err = errors.Join(err, withStatus(statusFalse, d))
				}
				return err
			})
		},
	}
	client.add(cmd.Flags())
	return cmd
}

// withBucket runs f with the cluster's snapshots.
func (f *clientFlags) withBucket(ctx context.Context, use func(context.Context, objectstore.Blobs) error) error {
	l, err := f.connect(ctx, "snapshots")
	if err != nil {
		return err
	}
	defer l.conn.Close()
	asking, cancel := within(ctx, f.timeout)
	defer cancel()
	view, err := gatherStatus(asking, l, "")
	if err != nil {
		return err
	}
	id, err := parseClusterID(view.newest().ClusterID)
	if err != nil {
		return fmt.Errorf("cluster %s: %w", l.cluster, err)
	}
	bucket, err := objectstore.NewBucket(l.conn, subjectPrefix+"-"+l.cluster, id, objectstore.BucketOptions{})
	if err != nil {
		return err
	}
	return use(ctx, bucket)
}

func parseClusterID(text string) (id raft.ClusterID, err error) {
	if n, err := hex.Decode(id[:], []byte(text)); err != nil || n != len(id) {
		return id, withStatus(statusUnavailable, errors.New("it has no id yet: its members have not agreed on its genesis"))
	}
	return id, nil
}

func (a *app) snapshotSaveCommand() *cobra.Command {
	var client clientFlags
	var take, overwrite bool
	cmd := &cobra.Command{
		Use:   "save FILE",
		Short: "Save the newest snapshot as a backup file",
		Long: `Save the newest snapshot as one file, after taking one of the present state (--take=false: the newest that there is). The file
appears in one step, verified. It can be verified, and restored, without any server.`,
		Example: "  quorate snapshot save backup.quorate",
		Args:    takes("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := os.Lstat(args[0]); err == nil && !overwrite {
				return usagef("%s exists: give another name, or --overwrite", args[0])
			}
			if take {
				err := client.withAdmin(cmd.Context(), "snapshot", func(ctx context.Context, admin *node.Admin) error {
					_, err := admin.Snapshot(ctx)
					return err
				})
				if err != nil {
					return err
				}
			}
			return client.withBucket(cmd.Context(), func(ctx context.Context, bucket objectstore.Blobs) error {
				ref, err := objectstore.Newest(ctx, bucket)
				if err != nil {
					return err
				}
				size, err := saveFile(ctx, bucket, ref, args[0])
				if err != nil {
					return fmt.Errorf("save %s: %w", args[0], err)
				}
				if a.json() {
					return a.printJSON(showSnapshot(ref))
				}
				return a.printf("snapshot of index %d, %s, in %s (%s)\n", ref.Last.Index, humanize.IBytes(ref.Bytes), args[0], humanize.IBytes(uint64(size)))
			})
		},
	}
	client.add(cmd.Flags())
	_ = cmd.Flags().Set("timeout", changeTimeout.String()) // a valid value
	cmd.Flags().Lookup("timeout").DefValue = changeTimeout.String()
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace FILE if it exists")
	cmd.Flags().BoolVar(&take, "take", true, "take a snapshot first")
	return cmd
}

// saveFile writes a backup beside its place, syncs it, and moves it there.
func saveFile(ctx context.Context, from objectstore.Blobs, ref storage.SnapshotRef, path string) (size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".quorate-backup-*")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(objectstore.Save(ctx, from, ref, f, objectstore.Retry{}), f.Sync()); err != nil {
		return 0, errors.Join(err, f.Close())
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return 0, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return 0, err
	}
	return info.Size(), errors.Join(dir.Sync(), dir.Close())
}

func (a *app) snapshotVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "verify FILE",
		Short:   "Check a backup file",
		Long:    "Read a whole backup file and check it. It needs no server. Exit status 1 if it is damaged.",
		Example: "  quorate snapshot verify backup.quorate",
		Args:    takes("FILE"),
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
