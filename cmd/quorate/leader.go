package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"

	"quorate/node"
)

// errNoLeader says that nodes answer, but none of them leads and takes writes.
var errNoLeader = errors.New("no leader")

// shownLeader is the JSON form of a leader.
type shownLeader struct {
	Cluster string `json:"cluster"`
	Leader  string `json:"leader"`
	Term    uint64 `json:"term"`
}

func (a *app) leaderCommand() *cobra.Command {
	var client clientFlags
	var wait bool
	cmd := &cobra.Command{
		Use:   "leader",
		Short: "Print the id of the node that leads",
		Long: `Print the id of the node that leads and takes writes now.

Exit status 3 if there is none; with --wait only when there is none after --timeout.`,
		Example: `  quorate leader
  quorate leader --wait --timeout 30s && quorate put greeting hello
  quorate leader transfer n2`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := within(cmd.Context(), client.timeout)
			defer cancel()
			leader, cluster, err := client.findLeader(ctx, wait)
			if err != nil {
				return err
			}
			if a.json() {
				return a.printJSON(shownLeader{Cluster: cluster, Leader: string(leader.ID), Term: leader.Term})
			}
			return a.printf("%s\n", leader.ID)
		},
	}
	cmd.AddCommand(a.leaderTransferCommand())
	client.add(cmd.Flags())
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until there is one, at most as long as --timeout says")
	return cmd
}

// findLeader asks who leads; with wait again and again, until somebody does or the context ends. It connects once, so that what it says when
// the time is over is what it heard of the nodes, and not that one more connection came too late.
func (f *clientFlags) findLeader(ctx context.Context, wait bool) (leader node.Status, cluster string, err error) {
	const askAgain = 100 * time.Millisecond
	again := time.NewTicker(askAgain)
	defer again.Stop()
	var l *link
	defer func() {
		if l != nil {
			l.conn.Close()
		}
	}()
	for {
		if l != nil && !l.conn.IsConnected() {
			l.conn.Close()
			l = nil // connecting anew says what is wrong
		}
		if l == nil {
			var failed error
			l, failed = f.connect(ctx, "leader")
			err = tellingMore(err, failed)
		}
		if l != nil {
			cluster = l.cluster
			leader, err = askLeader(ctx, l)
		}
		if err == nil || !wait || exitStatus(ctx, err) == statusUsage {
			return leader, cluster, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			if cause := context.Cause(ctx); errors.Is(cause, errInterrupted) {
				err = cause
			}
			return node.Status{}, cluster, err
		}
	}
}

// tellingMore is the newer error, but not if it would only say that the time is over.
func tellingMore(before, now error) error {
	var late net.Error
	if before != nil && errors.As(now, &late) && late.Timeout() {
		return before
	}
	return now
}

func askLeader(ctx context.Context, l *link) (node.Status, error) {
	view, err := gatherStatus(ctx, l, "")
	if err != nil {
		return node.Status{}, err
	}
	leader, ok := view.leader()
	if !ok {
		return node.Status{}, withStatus(statusUnavailable,
			fmt.Errorf("cluster %s has %w now: %d of its nodes answer: `quorate status` shows them", l.cluster, errNoLeader, len(view.answers)))
	}
	return leader, nil
}
