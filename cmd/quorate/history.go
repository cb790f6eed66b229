package main

import (
	"fmt"
	"math"
	"strconv"

	"github.com/spf13/cobra"

	"quorate/node/kv"
)

// historyAll is what a person says for all history.
const historyAll = "all"

// shownHistory is the JSON form of how much history is kept.
type shownHistory struct {
	// Revisions is left out if all are kept.
	Revisions uint64 `json:"revisions,omitempty"`
	All       bool   `json:"all,omitempty"`
}

func (a *app) historyCommand() *cobra.Command {
	var client clientFlags
	cmd := &cobra.Command{
		Use:   "history [REVISIONS|all]",
		Short: "Show or set how much history a cluster keeps",
		Long: fmt.Sprintf(`Show how many revisions of history a cluster keeps, or set it. A revision is an index of the log: with 1000, the versions that a key
had 1000 writes to the cluster ago can still be read, and older ones that newer ones supersede are removed. It is a setting of the
cluster, replicated as a write is: all nodes have the same. History that was given up does not come back when it is set to more.

At the beginning it is %d. It should be some times --snapshot-entries of the nodes: where history since the last snapshot is gone,
the next one is sent whole.`, kv.DefaultHistory),
		Example: `  quorate history
  quorate history 10000000
  quorate history all`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := within(cmd.Context(), client.timeout)
			defer cancel()
			var revisions uint64
			if len(args) == 1 {
				var err error
				if revisions, err = parseHistory(args[0]); err != nil {
					return err
				}
			}
			err := client.withClient(ctx, "history", func(c *kv.Client) (err error) {
				if len(args) == 1 {
					return c.SetHistory(ctx, revisions)
				}
				revisions, err = c.History(ctx)
				return err
			})
			if err != nil {
				return err
			}
			if a.json() {
				if revisions == math.MaxUint64 {
					return a.printJSON(shownHistory{All: true})
				}
				return a.printJSON(shownHistory{Revisions: revisions})
			}
			if revisions == math.MaxUint64 {
				return a.printf("%s\n", historyAll)
			}
			return a.printf("%d\n", revisions)
		},
	}
	client.add(cmd.Flags())
	return cmd
}

func parseHistory(text string) (uint64, error) {
	if text == historyAll {
		return math.MaxUint64, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, usagef("history %q must be a number of revisions from 1 on, or %q", text, historyAll)
	}
	return n, nil
}
