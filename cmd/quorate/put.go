package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"quorate/node/kv"
)

// written is the JSON form of what a write did.
type written struct {
	Key      *string `json:"key,omitempty"`
	KeyBytes []byte  `json:"key_base64,omitempty"`
	Revision uint64  `json:"revision"`
}

// printWritten's error says that the write is done all the same.
func (a *app) printWritten(key string, revision uint64) (err error) {
	if a.json() {
		w := written{Revision: revision}
		w.Key, w.KeyBytes = textOrBytes([]byte(key))
		err = a.printJSON(w)
	} else {
		err = a.printf("revision %d\n", revision)
	}
	if err != nil {
		return fmt.Errorf("done (revision %d), but it cannot be told: %w", revision, err)
	}
	return nil
}

// conditionFlag is --if-revision.
type conditionFlag struct {
	cmd      *cobra.Command
	revision uint64
}

func (f *conditionFlag) add(cmd *cobra.Command, usage string) {
	f.cmd = cmd
	cmd.Flags().Uint64Var(&f.revision, "if-revision", 0, usage)
}

func (f *conditionFlag) options() []kv.WriteOption {
	if !f.cmd.Flags().Changed("if-revision") {
		return nil
	}
	return []kv.WriteOption{kv.IfRevision(f.revision)}
}

func (a *app) putCommand() *cobra.Command {
	var client clientFlags
	var condition conditionFlag
	cmd := &cobra.Command{
		Use:   "put KEY VALUE",
		Short: "Store a value under a key",
		Long: `Store a value under a key. VALUE "-" reads the value from standard input, byte by byte as it is. A VALUE that begins
with a dash goes after "--". The write is on the disks of a majority of the nodes when the command returns.

Exit status 1 if the condition of --if-revision is false, 3 if the cluster is unavailable; a write without an answer may or
may not take effect, and the message says so.`,
		Example: `  quorate put greeting hello
  quorate put config - < config.yaml
  quorate put lock me --if-revision 0    # only if there is no such key
  quorate put balance -- -5`,
		Args: takes("KEY", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key := args[0]
			value, err := a.value(cmd.Context(), args[1])
			if err != nil {
				return err
			}
			return client.withClient(cmd.Context(), "put", func(c *kv.Client) error {
				ctx, cancel := within(cmd.Context(), client.timeout)
				defer cancel()
				revision, err := c.Put(ctx, key, value, condition.options()...)
				if err != nil {
					return err
				}
				return a.printWritten(key, revision)
			})
		},
	}
	client.add(cmd.Flags())
	condition.add(cmd, "write only if the key is at this revision; 0: only if there is no such key")
	return cmd
}

// maxInput is more than any value may have, since no NATS server takes larger messages.
const maxInput = 64 << 20

// value is a VALUE argument, which "-" has read from standard input.
func (a *app) value(ctx context.Context, arg string) ([]byte, error) {
	if arg != "-" {
		return []byte(arg), nil
	}
	value, err := readAll(ctx, io.LimitReader(a.stdin, maxInput+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the value from standard input: %w", err)
	case len(value) > maxInput:
		return nil, usagef("the value from standard input has more than %d bytes, which no NATS server takes", maxInput)
	}
	return value, nil
}

// readAll reads r to its end, or until the context ends: nobody can interrupt a read, but the program need not wait for it.
func readAll(ctx context.Context, r io.Reader) ([]byte, error) {
	type outcome struct {
		content []byte
		err     error
	}
	read := make(chan outcome, 1)
	go func() { // ends with the input, or with the process
		content, err := io.ReadAll(r)
		read <- outcome{content, err}
	}()
	select {
	case o := <-read:
		return o.content, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
