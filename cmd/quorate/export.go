package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"quorate/node/kv"
)

func (a *app) exportCommand() *cobra.Command {
	var client clientFlags
	var ex exporter
	var showProgress bool
	cmd := &cobra.Command{
		Use:   "export DIR",
		Short: "Write every key as a file",
		Long: `Write every key that begins with --prefix as a file below DIR: what follows the prefix is the path, the value is the
content, byte for byte, all as of one moment. Each file appears in one step. Files of other names that are in DIR stay.

A key that cannot be a file is refused and named, never written elsewhere: an absolute path, "..", an empty part, a NUL byte,
a key below another ("a/b" where "a" is a key), two that the file system takes for one, or a part that begins with .quorate-export-:
under such names DIR has files that are being written, and what is left there by an export that was killed is removed by the next one.

Exit status 1 if some keys were refused, 3 if the cluster is unavailable (what was written is then incomplete), 4 if some files
could not be written, or their values be had: NATS takes smaller messages than when they were put.`,
		Example: `  quorate export ./backup
  quorate export --prefix app1/ ./app1 --output json`,
		Args: takesPath("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return client.withClient(cmd.Context(), "export", func(c *kv.Client) (err error) {
				dir, err := openExportDir(args[0])
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, dir.close()) }()
				folds, err := dir.folds()
				if err != nil {
					return fmt.Errorf("export to %s: %w", args[0], err)
				}
				ex.app, ex.client, ex.dir = a, c, dir
				ex.paths = newExportPaths(ex.prefix, folds)
				summary, err := ex.run(cmd.Context(), client.timeout, showProgress)
				return errors.Join(summary.print(a), summary.outcome(err))
			})
		},
	}
	client.add(cmd.Flags())
	addProgressFlag(cmd.Flags(), &showProgress)
	cmd.Flags().StringVar(&ex.prefix, "prefix", "", "export only keys that begin with this, and leave it out of the paths")
	return cmd
}

// exporter writes keys as files: one goroutine lists and decides on the paths, a few write.
type exporter struct {
	app    *app
	client *kv.Client
	dir    *exportDir
	paths  *exportPaths
	prefix string

	mu      sync.Mutex // guards summary
	summary exportSummary
}

// exportSummary is what an export did, and its JSON form.
type exportSummary struct {
	Files   int          `json:"files"`
	Bytes   int64        `json:"bytes"`
	Refused []itemRemark `json:"refused,omitempty"`
	Failed  []itemRemark `json:"failed,omitempty"`
	Seconds float64      `json:"seconds"`
}

type exportFile struct {
	path    string
	content []byte
}

// exportWriters is how many files are written at once; more than a disk has use for gains nothing.
const exportWriters = 8

// run writes everything. It returns what it did also with an error, which means that it did not come to the end.
func (ex *exporter) run(ctx context.Context, timeout time.Duration, showProgress bool) (*exportSummary, error) {
	begun := time.Now()
	bar := ex.app.newProgress(showProgress, -1, false, "exporting")
	defer bar.end()
	files := make(chan exportFile, exportWriters)
	var group sync.WaitGroup
	for range exportWriters {
		group.Go(func() {
			for file := range files {
				ex.write(file, bar)
			}
		})
	}
	err := ex.list(ctx, timeout, files, bar)
	close(files)
	group.Wait()
	ex.summary.Seconds = time.Since(begun).Seconds()
	return &ex.summary, err
}

func (ex *exporter) list(ctx context.Context, timeout time.Duration, files chan<- exportFile, bar *progress) error {
	ctx, watch := withInactivityTimeout(ctx, timeout)
	defer watch.stop()
	for entry, err := range ex.client.List(ctx, ex.prefix, false) {
		if err != nil && entry.Key != "" { // all others are listed
			ex.note(bar, &ex.summary.Failed, remark(entry.Key, "%v", err))
			watch.alive()
			continue
		}
		if err != nil {
			return sayWhy(ctx, err)
		}
		path, err := ex.paths.take(entry.Key)
		if err != nil {
			ex.note(bar, &ex.summary.Refused, remark(entry.Key, "%v", err))
			watch.alive()
			continue
		}
		watch.pause() // a slow disk is no reason to give up
		files <- exportFile{path: path, content: entry.Value}
		watch.alive()
	}
	return nil
}

func (ex *exporter) write(file exportFile, bar *progress) {
	if err := ex.dir.write(file.path, file.content); err != nil {
		ex.note(bar, &ex.summary.Failed, remark(ex.prefix+file.path, "%v", err))
		return
	}
	bar.add(1)
	ex.mu.Lock()
	defer ex.mu.Unlock()
	ex.summary.Files++
	ex.summary.Bytes += int64(len(file.content))
}

func (ex *exporter) note(bar *progress, list *[]itemRemark, r itemRemark) {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	*list = append(*list, r)
	bar.say("%s: not written: %s", printableKey(r.path()), r.Reason)
}

func (s *exportSummary) print(a *app) error {
	if a.json() {
		return a.printJSON(s)
	}
	err := a.printf("%d files written, %s, in %.1f s\n", s.Files, humanize.IBytes(uint64(s.Bytes)), s.Seconds)
	if err == nil && len(s.Refused) > 0 {
		err = a.printf("%d keys refused: they cannot be files\n", len(s.Refused))
	}
	if err == nil && len(s.Failed) > 0 {
		err = a.printf("%d keys failed\n", len(s.Failed))
	}
	return err
}

// outcome turns the summary into the error that the exit status follows from; err is why the export ended early, or nil.
func (s *exportSummary) outcome(err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("export: incomplete: %w", err)
	case len(s.Failed) > 0:
		return withStatus(statusFailed, fmt.Errorf("export: %d files could not be written", len(s.Failed)))
	case len(s.Refused) > 0:
		return withStatus(statusFalse, fmt.Errorf("export: %d keys cannot be files; all others are written", len(s.Refused)))
	}
	return nil
}
