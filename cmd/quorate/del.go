package main

import (
	"github.com/spf13/cobra"

	"quorate/node/kv"
)

func (a *app) delCommand() *cobra.Command {
	var client clientFlags
	var condition conditionFlag
	cmd := &cobra.Command{
		Use:   "del KEY",
		Short: "Delete a key",
		Long: `Delete a key.

Exit status 1 if there is no such key, or the condition of --if-revision is false.`,
		Example: `  quorate del greeting
  quorate del lock --if-revision 42`,
		Args: takes("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return client.withClient(cmd.Context(), "del", func(c *kv.Client) error {
				ctx, cancel := within(cmd.Context(), client.timeout)
				defer cancel()
				revision, err := c.Delete(ctx, args[0], condition.options()...)
				if err != nil {
					return err
				}
				return a.printWritten(args[0], revision)
			})
		},
	}
	client.add(cmd.Flags())
	condition.add(cmd, "delete only if the key is at this revision")
	return cmd
}
