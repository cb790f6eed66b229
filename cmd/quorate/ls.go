package main

import (
	"bufio"
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"quorate/node/kv"
)

func (a *app) lsCommand() *cobra.Command {
	var client clientFlags
	var read readFlags
	var long, values bool
	cmd := &cobra.Command{
		Use:   "ls [PREFIX]",
		Short: "List keys",
		Long: `List the keys that begin with PREFIX, or all, in the order of their bytes, one a line. A key that a line cannot show is
quoted like a Go string. The list is as of one moment. No key is no error.

With --output json: one object a line, with key, revision and time, and with --values the value too.
A value that is larger than NATS now takes is left out with its key: the command fails when the others are listed, with exit status 4.`,
		Example: `  quorate ls
  quorate ls app1/ --long
  quorate ls app1/ --values --output json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if values && !a.json() {
				return usagef("--values needs --output json: values can be of any form and length")
			}
			prefix := ""
			if len(args) == 1 {
				prefix = args[0]
			}
			return client.withClient(cmd.Context(), "ls", func(c *kv.Client) error {
				options, err := read.options()
				if err != nil {
					return err
				}
				defer read.report(a)
				return read.explain(a.list(cmd, c, &client, prefix, long, values, options))
			})
		},
	}
	client.add(cmd.Flags())
	read.add(cmd.Flags())
	cmd.Flags().BoolVarP(&long, "long", "l", false, "print revision and time before each key")
	cmd.Flags().BoolVar(&values, "values", false, "with --output json: list the values too")
	return cmd
}

func (a *app) list(cmd *cobra.Command, c *kv.Client, client *clientFlags, prefix string, long, values bool, options []kv.ReadOption) error {
	ctx, watch := withInactivityTimeout(cmd.Context(), client.timeout)
	defer watch.stop()
	shown := *a
	out := bufio.NewWriterSize(a.stdout, 64<<10)
	shown.stdout = out
	var noValue error // of the first key
	noValues := 0
	for entry, err := range c.List(ctx, prefix, !values, options...) {
		if err != nil && entry.Key != "" { // of its value alone: the others are listed
			noValue, noValues = cmp.Or(noValue, err), noValues+1
			watch.alive()
			continue
		}
		if err != nil {
			_ = out.Flush() // what came is still right; the error of the list is the one to tell
			return sayWhy(ctx, err)
		}
		watch.alive()
		switch {
		case a.json():
			err = shown.printJSON(showEntry(entry, values))
		case long:
			err = shown.printf("%12d  %s  %s\n", entry.Revision, entry.Time.Local().Format(time.RFC3339), printableKey(entry.Key))
		default:
			err = shown.printf("%s\n", printableKey(entry.Key))
		}
		if err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	if noValues > 1 {
		return fmt.Errorf("%w (and so those of %d more keys)", noValue, noValues-1)
	}
	return noValue
}
