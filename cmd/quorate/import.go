package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"quorate/node/kv"
)

func (a *app) importCommand() *cobra.Command {
	var client clientFlags
	var im importer
	var showProgress bool
	cmd := &cobra.Command{
		Use:   "import DIR",
		Short: "Store every file below a directory",
		Long: `Store every regular file below DIR: its path relative to DIR, with slashes, is the key, its content the value. Symbolic
links below DIR are never followed: they and other special files (FIFOs, sockets, devices) are skipped, and named, also when they take
the place of a file while the import runs. So is what an export left that was killed (.quorate-export-*). Empty directories and file
modes are not kept.

An import can be interrupted and simply be run again. While the cluster is unavailable it tries again, also a write of which
nobody knows whether it took effect: storing the same file twice changes nothing. --timeout bounds one attempt, --patience how
long one file is tried before the import gives up.

Exit status 1 if some files cannot be taken because they are over the cluster's limit, or their paths too long for a key: each is
named, and everything else is stored. 3 if it gave up since the cluster was unavailable, 4 if some files could not be read.`,
		Example: `  quorate import ./config
  quorate import --prefix app1/ ./app1 --output json
  quorate import "$(go env GOROOT)/src"`,
		Args: takesPath("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if im.concurrency < 1 {
				return usagef("--concurrency %d must be at least 1", im.concurrency)
			}
			if im.retry.patience < 0 {
				return usagef("--patience %v must not be negative", im.retry.patience)
			}
			plan, err := scanImport(args[0], im.prefix)
			if err != nil {
				return err
			}
			defer func() { _ = plan.root.Close() }() // was only read
			return client.withClient(cmd.Context(), "import", func(c *kv.Client) error {
				im.app, im.client, im.plan, im.retry.attempt = a, c, plan, client.timeout
				summary, err := im.run(cmd.Context(), showProgress)
				return errors.Join(summary.print(a), summary.outcome(err))
			})
		},
	}
	client.add(cmd.Flags())
	addProgressFlag(cmd.Flags(), &showProgress)
	cmd.Flags().StringVar(&im.prefix, "prefix", "", "put this before every path to make the key")
	cmd.Flags().IntVar(&im.concurrency, "concurrency", 64, "how many files are under way at once")
	cmd.Flags().DurationVar(&im.retry.patience, "patience", defaultPatience, "how long one file is tried again while the cluster is unavailable")
	cmd.Flags().BoolVar(&im.skipUnchanged, "skip-unchanged", false, "read each key first, and do not write what is there already")
	return cmd
}

// importer stores the files of a plan.
type importer struct {
	app           *app
	client        *kv.Client
	plan          importPlan
	prefix        string
	concurrency   int
	skipUnchanged bool
	retry         retry
	limit         int // bytes that a key and its value may have together

	mu      sync.Mutex // guards summary
	summary importSummary
}

// importSummary is what an import did, and its JSON form.
type importSummary struct {
	Files     int          `json:"files"`
	Bytes     int64        `json:"bytes"`
	Unchanged int          `json:"unchanged"`
	Limit     int          `json:"limit_bytes"`
	TooLarge  []itemRemark `json:"too_large,omitempty"`
	Refused   []itemRemark `json:"refused,omitempty"`
	Skipped   []itemRemark `json:"skipped,omitempty"`
	Failed    []itemRemark `json:"failed,omitempty"`
	Missing   int          `json:"not_stored,omitempty"` // when the import ended before its end
	Seconds   float64      `json:"seconds"`
}

// run stores everything. It returns what it did also with an error, which means that it did not come to the end.
func (im *importer) run(ctx context.Context, showProgress bool) (*importSummary, error) {
	begun := time.Now()
	im.summary = importSummary{Skipped: im.plan.skipped, Refused: im.plan.refused, Failed: im.plan.failed}
	for _, r := range im.plan.skipped {
		fmt.Fprintf(im.app.stderr, "%s: skipped: %s\n", printableKey(r.path()), r.Reason)
	}
	for _, r := range slices.Concat(im.plan.refused, im.plan.failed) {
		fmt.Fprintf(im.app.stderr, "%s: not stored: %s\n", printableKey(r.path()), r.Reason)
	}
	err := im.retry.do(ctx, func(ctx context.Context) (err error) {
		im.limit, err = im.client.MaxValueBytes(ctx)
		return err
	})
	if err != nil {
		im.summary.Missing = len(im.plan.files)
		return &im.summary, fmt.Errorf("ask for the largest value: %w", err)
	}
	im.summary.Limit = im.limit
	bar := im.app.newProgress(showProgress, im.plan.bytes, true, "importing")
	defer bar.end()

	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	var next, done atomic.Int64
	var group sync.WaitGroup
	for range min(im.concurrency, len(im.plan.files)) {
		group.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(im.plan.files)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				file := im.plan.files[i]
				if err := im.store(ctx, file, bar); err != nil {
					giveUp(fmt.Errorf("%s: %w", printableKey(file.path), err))
					return
				}
				done.Add(1)
				bar.add(file.size)
			}
		})
	}
	group.Wait()
	im.summary.Seconds = time.Since(begun).Seconds()
	im.summary.Missing = len(im.plan.files) - int(done.Load())
	if im.summary.Missing == 0 {
		return &im.summary, nil
	}
	return &im.summary, context.Cause(ctx)
}

// store stores one file, or notes why it cannot. An error means that there is no use in going on.
func (im *importer) store(ctx context.Context, file importFile, bar *progress) error {
	content, tooLarge, err := im.plan.read(file, im.limit-len(file.key))
	var changed *changedError
	switch {
	case errors.As(err, &changed):
		im.note(bar, &im.summary.Skipped, remark(file.path, "%v", err))
		return nil
	case err != nil:
		im.note(bar, &im.summary.Failed, remark(file.path, "%v", err))
		return nil
	case tooLarge:
		im.note(bar, &im.summary.TooLarge, tooLargeRemark(file, im.limit))
		return nil
	}
	unchanged := false
	err = im.retry.do(ctx, func(ctx context.Context) error {
		if im.skipUnchanged {
			entry, err := im.client.Get(ctx, file.key)
			if unchanged = err == nil && bytes.Equal(entry.Value, content); unchanged {
				return nil
			}
			if err != nil && !errors.Is(err, kv.ErrNotFound) {
				return err
			}
		}
		_, err := im.client.Put(ctx, file.key, content)
		return err
	})
	switch {
	case err == nil:
		im.mu.Lock()
		defer im.mu.Unlock()
		if unchanged {
			im.summary.Unchanged++
		} else {
			im.summary.Files++
			im.summary.Bytes += int64(len(content))
		}
		return nil
	case isTooLarge(err):
		// The NATS server that is reached now may offer less than the one that was asked.
		im.note(bar, &im.summary.TooLarge, tooLargeRemark(file, im.limit))
		return nil
	case errors.Is(err, kv.ErrInvalidKey):
		im.note(bar, &im.summary.Refused, remark(file.path, "%v", err))
		return nil
	}
	return err
}

func tooLargeRemark(file importFile, limit int) itemRemark {
	r := remark(file.path, "%d bytes: the limit is %d bytes", file.size, limit-len(file.key))
	r.Bytes = file.size
	return r
}

func (im *importer) note(bar *progress, list *[]itemRemark, r itemRemark) {
	im.mu.Lock()
	defer im.mu.Unlock()
	*list = append(*list, r)
	verdict := "not stored"
	if list == &im.summary.Skipped {
		verdict = "skipped"
	}
	bar.say("%s: %s: %s", printableKey(r.path()), verdict, r.Reason)
}

func (s *importSummary) print(a *app) error {
	if a.json() {
		return a.printJSON(s)
	}
	err := a.printf("%d files stored, %s, in %.1f s\n", s.Files, humanize.IBytes(uint64(s.Bytes)), s.Seconds)
	for _, count := range []struct {
		n    int
		text string
	}{
		{s.Unchanged, "unchanged"},
		{len(s.TooLarge), fmt.Sprintf("over the limit of %d bytes (path included), not stored", s.Limit)},
		{len(s.Refused), "refused, not stored"},
		{len(s.Failed), "failed, not stored"},
		{len(s.Skipped), "skipped: links, special files, unfinished files of an export"},
		{s.Missing, "not stored, since the import ended early: run it again"},
	} {
		if err == nil && count.n > 0 {
			err = a.printf("%d %s\n", count.n, count.text)
		}
	}
	return err
}

// outcome turns the summary into the error that the exit status follows from; err is why the import ended early, or nil.
func (s *importSummary) outcome(err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("import: %w", err)
	case len(s.Failed) > 0:
		return withStatus(statusFailed, fmt.Errorf("import: %d files could not be read", len(s.Failed)))
	case len(s.TooLarge)+len(s.Refused) > 0:
		return withStatus(statusFalse, fmt.Errorf("import: %d files cannot be stored; all others are", len(s.TooLarge)+len(s.Refused)))
	}
	return nil
}
