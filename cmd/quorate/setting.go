package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/spf13/cobra"

	"quorate/node"
	"quorate/node/raft"
)

// shownSetting is the JSON form of the replicated setting.
type shownSetting struct {
	ID              raft.LogID    `json:"id"`
	Lease           time.Duration `json:"lease_ns"`
	InstantFailover bool          `json:"instant_failover"`
}

func (a *app) printSetting(s node.Setting) error {
	if a.json() {
		return a.printJSON(shownSetting{ID: s.ID, Lease: s.Lease, InstantFailover: s.Lease == 0})
	}
	return a.printf("%s\n", describeSetting(s))
}

func describeSetting(s node.Setting) string {
	if s.Lease == 0 {
		return "instant failover"
	}
	return fmt.Sprintf("leases of %v", s.Lease)
}

func (a *app) settingCommand() *cobra.Command {
	var client clientFlags
	cmd := &cobra.Command{
		Use:   "setting",
		Short: "Show and change what a cluster has agreed on: instant failover or leases",
		Long: `Show what the cluster has agreed on besides its members: instant failover, which is the default, or leases.

With instant failover another node takes the leader's place as soon as NATS tells that it is gone. With leases nobody does for the time of a
lease after the leader was last heard of; so it knows that it leads, and serves reads with --consistency lease alone, without a round to a
quorum. These reads are linearizable as long as the clocks of the nodes run at one pace, within 10 %.

With --output json: id (the log id of the entry), lease_ns and instant_failover. Exit status 3 if nobody leads.`,
		Example: `  quorate setting
  quorate setting set --lease 500ms
  quorate setting set --instant-failover`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return client.withAdmin(cmd.Context(), "setting", func(ctx context.Context, admin *node.Admin) error {
				s, err := admin.Setting(ctx)
				if err != nil {
					return err
				}
				return a.printSetting(s)
			})
		},
	}
	client.add(cmd.Flags())
	cmd.AddCommand(a.settingSetCommand())
	return cmd
}

func (a *app) settingSetCommand() *cobra.Command {
	var client clientFlags
	var lease time.Duration
	var instant bool
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Choose leases or instant failover",
		Long: `Choose leases or instant failover, for the whole cluster. It returns when the change is committed; reads and writes go on.

A good lease is the election timeout of the nodes, 500 ms by default. A longer one is lost less easily, and is how long the cluster has no
leader after it has lost one; a minute is the most. What is in force already changes nothing.

Exit status 3 if nobody leads or time ran out: it may then take effect, and the same command goes on.`,
		Example: `  quorate setting set --lease 500ms
  quorate setting set --instant-failover --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if instant == cmd.Flags().Changed("lease") {
				return usagef("say either --lease DURATION or --instant-failover")
			}
			if !instant && lease <= 0 {
				return usagef("--lease is %v: it must be more than nothing; --instant-failover is without leases", lease)
			}
			return client.withAdmin(cmd.Context(), "setting", func(ctx context.Context, admin *node.Admin) error {
				if err := changeSetting(ctx, admin, node.SettingChange{Lease: &lease}); errors.Is(err, node.ErrConfig) {
					return &usageError{err: err}
				} else if err != nil {
					return err
				}
				s, err := admin.Setting(ctx)
				if err != nil {
					return err
				}
				return a.printSetting(s)
			})
		},
	}
	client.add(cmd.Flags())
	cmd.Flags().DurationVar(&lease, "lease", 0, "have leases of this length in place of instant failover")
	cmd.Flags().BoolVar(&instant, "instant-failover", false, "have instant failover in place of leases")
	return cmd
}

// changeSetting asks until it is done, as long as what is in the way passes: the same setting twice is one.
func changeSetting(ctx context.Context, admin *node.Admin, change node.SettingChange) error {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval, waits.MaxInterval = 50*time.Millisecond, time.Second
	for {
		_, err := admin.ChangeSetting(ctx, change)
		if err == nil || ctx.Err() != nil || !passes(err) && !errors.Is(err, raft.ErrSettingPending) {
			return err
		}
		select {
		case <-time.After(waits.NextBackOff()):
		case <-ctx.Done():
		}
	}
}
