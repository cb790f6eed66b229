package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"quorate/node"
	"quorate/storage"
	"quorate/storage/objectstore"
)

// snapshotSaver is one call of snapshot save.
type snapshotSaver struct {
	app       *app
	path      string
	overwrite bool
	progress  bool
}

func (a *app) snapshotSaveCommand() *cobra.Command {
	var client clientFlags
	var take bool
	s := snapshotSaver{app: a}
	cmd := &cobra.Command{
		Use:   "save FILE",
		Short: "Save the newest snapshot as a backup file",
		Long: `Save the newest snapshot as one file, after taking one of the present state (--take=false: the newest that there is). The file
appears in one step, verified. It can be verified, and restored, without any server. Without JetStream it comes from the node that
built it.

What was read when a save breaks off stays beside it, as FILE.partial; the same command goes on from there.

Exit status 1 if there is no snapshot to save.`,
		Example: "  quorate snapshot save backup.quorate",
		Args:    takesPath("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s.path = args[0]
			if _, err := os.Lstat(s.path); err == nil && !s.overwrite {
				return usagef("%s exists: give another name, or --overwrite", s.path)
			}
			if info, err := os.Stat(s.path); err == nil && !info.Mode().IsRegular() { // the backup would take the place of a device, too
				return usagef("%s is no regular file: give another name", s.path)
			}
			var wanted storage.SnapshotRef
			if take {
				err := client.withAdmin(cmd.Context(), "snapshot", func(ctx context.Context, admin *node.Admin) (err error) {
					wanted, err = admin.Snapshot(ctx)
					return err
				})
				if err != nil {
					return err
				}
			}
			return client.withShelf(cmd.Context(), func(ctx context.Context, from *shelf) error { return s.run(ctx, from, wanted) })
		},
	}
	client.add(cmd.Flags())
	_ = cmd.Flags().Set("timeout", snapshotTimeout.String()) // a valid value
	cmd.Flags().Lookup("timeout").DefValue = snapshotTimeout.String()
	cmd.Flags().BoolVar(&s.overwrite, "overwrite", false, "replace FILE if it exists")
	cmd.Flags().BoolVar(&take, "take", true, "take a snapshot first")
	addProgressFlag(cmd.Flags(), &s.progress)
	return cmd
}

// run saves the wanted snapshot, or the newest if none is. One that is removed meanwhile, since newer ones have taken its place, is no
// failure: the newest of those is saved, and has most of its parts in common with it.
func (s *snapshotSaver) run(ctx context.Context, from *shelf, wanted storage.SnapshotRef) error {
	for {
		found, err := from.list(ctx)
		if err != nil {
			return err
		}
		chosen, err := found.choose(wanted)
		if err != nil {
			return fmt.Errorf("cluster %s: %w", from.link.cluster, err)
		}
		size, had, err := s.save(ctx, from.parts(chosen), chosen.Ref)
		switch {
		case err == nil:
			return s.print(chosen, size, had)
		case errors.Is(err, objectstore.ErrNotFound):
			again, failed := from.list(ctx)
			newest, none := again.choose(storage.SnapshotRef{})
			if failed == nil && none == nil && newest.Ref != chosen.Ref {
				wanted = newest.Ref
				continue
			}
		}
		return fmt.Errorf("save %s: %w", s.path, err)
	}
}

// choose returns the wanted snapshot, or the newest if none is wanted or that one is there no more.
func (l *listing) choose(wanted storage.SnapshotRef) (shelved, error) {
	for _, one := range l.snapshots {
		if one.Ref == wanted {
			return one, nil
		}
	}
	if len(l.snapshots) > 0 {
		return l.snapshots[0], nil
	}
	err := errors.Join(append([]error{errors.New("there is no snapshot")}, l.damaged...)...)
	if remark := l.remark(); remark != "" {
		return shelved{}, withStatus(statusUnavailable, fmt.Errorf("%w: %s", err, remark))
	}
	return shelved{}, withStatus(statusFalse, err)
}

// save writes a backup beside its place, syncs it, and moves it there. had is how much of it an earlier attempt had read.
func (s *snapshotSaver) save(ctx context.Context, from objectstore.Blobs, ref storage.SnapshotRef) (size, had int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(s.path), ".quorate-backup-*")
	if err != nil {
		return 0, 0, err
	}
	partial := s.path + ".partial"
	bar := s.app.newProgress(s.progress, int64(ref.Bytes), true, "saving")
	defer bar.end()
	options := objectstore.SaveOptions{Retry: objectstore.Retry{
		Notify: func(err error, pause time.Duration) { bar.say("goes on in %v: %v", pause.Round(time.Millisecond), err) },
	}}
	if earlier, err := objectstore.OpenFile(vfs.Default, partial); err == nil {
		defer func() { _ = earlier.Close() }() // it was read
		options.Have = earlier
	}
	var shown int64
	options.Progress = func(done, total, already int64) {
		bar.max(total)
		bar.add(done - shown)
		shown, had = done, already
	}
	if err := errors.Join(objectstore.Save(ctx, from, ref, f, options), f.Sync()); err != nil {
		return 0, 0, errors.Join(err, f.Close(), keepLarger(f.Name(), partial))
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, 0, errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), s.path); err != nil {
		return 0, 0, errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Remove(partial); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, 0, err
	}
	dir, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return 0, 0, err
	}
	return info.Size(), had, errors.Join(dir.Sync(), dir.Close())
}

// keepLarger leaves the larger of what two attempts have read.
func keepLarger(newer, partial string) error {
	a, err := os.Stat(newer)
	if err != nil {
		return err
	}
	if b, err := os.Stat(partial); a.Size() == 0 || err == nil && b.Size() > a.Size() {
		return os.Remove(newer)
	}
	return os.Rename(newer, partial)
}

// shownSave is the JSON form of what was saved.
type shownSave struct {
	shownSnapshot
	FileBytes int64 `json:"file_bytes"`
	// Resumed is how much of it an earlier attempt had read.
	Resumed int64 `json:"resumed_bytes,omitempty"`
}

func (s *snapshotSaver) print(saved shelved, size, had int64) error {
	if s.app.json() {
		return s.app.printJSON(shownSave{shownSnapshot: saved.shown(), FileBytes: size, Resumed: had})
	}
	resumed := ""
	if had > 0 {
		resumed = fmt.Sprintf("; %s of it was in %s.partial", humanize.IBytes(uint64(had)), s.path)
	}
	return s.app.printf("snapshot of index %d, %s, in %s (%s%s)\n", saved.Ref.Last.Index, humanize.IBytes(saved.Ref.Bytes), s.path, humanize.IBytes(uint64(size)), resumed)
}
