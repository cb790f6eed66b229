package main

import (
	"bytes"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"quorate/node/kv"
)

// shownEntry is the JSON form of a key with its value. Of each pair of text and bytes exactly one is there.
type shownEntry struct {
	Key        *string   `json:"key,omitempty"`
	KeyBytes   []byte    `json:"key_base64,omitempty"`
	Value      *string   `json:"value,omitempty"`
	ValueBytes []byte    `json:"value_base64,omitempty"`
	Revision   uint64    `json:"revision"`
	Time       time.Time `json:"time"`
}

func showEntry(e kv.Entry, withValue bool) shownEntry {
	s := shownEntry{Revision: e.Revision, Time: e.Time.UTC()}
	s.Key, s.KeyBytes = textOrBytes([]byte(e.Key))
	if withValue {
		s.Value, s.ValueBytes = textOrBytes(e.Value)
	}
	return s
}

func (a *app) getCommand() *cobra.Command {
	var client clientFlags
	var read readFlags
	cmd := &cobra.Command{
		Use:   "get KEY",
		Short: "Print the value of a key",
		Long: `Print the newest value of a key, as it is: nothing is added, but a newline if a terminal would else be left in the middle
of a line. The read is linearizable: it sees every write that was acknowledged before it began; unless --consistency local asks
for what a node has, and standard error then says how long ago that node heard of the leader.

With --output json: key, value, revision and time. What is not valid UTF-8 comes as base64, in the field value_base64 (or
key_base64) in place of value (or key).

Exit status 1 if there is no such key.`,
		Example: `  quorate get greeting
  quorate get config > config.yaml
  quorate get greeting --output json
  quorate get greeting --consistency lease
  quorate get greeting --consistency local --node n2`,
		Args: takes("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return client.withClient(cmd.Context(), "get", func(c *kv.Client) error {
				ctx, cancel := within(cmd.Context(), client.timeout)
				defer cancel()
				options, err := read.options()
				if err != nil {
					return err
				}
				entry, err := c.Get(ctx, args[0], options...)
				if err != nil {
					return read.explain(err)
				}
				read.report(a)
				return a.printValue(entry)
			})
		},
	}
	client.add(cmd.Flags())
	read.add(cmd.Flags())
	return cmd
}

func (a *app) printValue(entry kv.Entry) error {
	if a.json() {
		return a.printJSON(showEntry(entry, true))
	}
	value := entry.Value
	if isTerminal(a.stdout) && !bytes.HasSuffix(value, []byte("\n")) {
		value = append(bytes.Clone(value), '\n')
	}
	if _, err := a.stdout.Write(value); err != nil {
		return fmt.Errorf("write the value: %w", err)
	}
	return nil
}
