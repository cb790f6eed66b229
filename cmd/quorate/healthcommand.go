package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"quorate/node"
	"quorate/node/raft"
)

// healthFlags say whose health is asked for, and how.
type healthFlags struct {
	client  clientFlags
	metrics string
	node    string
	alive   bool
}

// shownHealth is the JSON form of a health.
type shownHealth struct {
	Healthy bool     `json:"healthy"`
	Reasons []string `json:"reasons,omitempty"`
}

// errUnhealthy says that a node answers, and that it is not well, or that members are missing.
var errUnhealthy = errors.New("unhealthy")

func (a *app) healthCommand() *cobra.Command {
	var f healthFlags
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Tell by the exit status whether a node is ready",
		Long: `Tell by the exit status whether a node is ready: it knows a leader, what it has is being committed and gets to its disk, and its
state is close behind. With --alive, whether it runs: that is no reason to restart a node that cannot reach the others.

With --metrics, the process that serves metrics there is asked, over HTTP; a container's health check needs nothing else. Otherwise the
nodes are asked over NATS, all of them or the one that --node names; a member that does not answer is not ready.

Exit status 1 if a node is not ready (each reason is named), 3 if nobody answers.`,
		Example: `  quorate health --metrics 127.0.0.1:9464
  quorate health --node n2 --cluster orders
  quorate health --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reasons, err := f.ask(cmd)
			if err != nil {
				return err
			}
			return a.printHealth(reasons)
		},
	}
	flags := cmd.Flags()
	f.client.add(flags)
	flags.StringVar(&f.metrics, "metrics", "", "ask the process whose --metrics-listen this `host:port` is")
	flags.StringVar(&f.node, "node", "", "ask only the node with this id, over NATS")
	flags.BoolVar(&f.alive, "alive", false, "ask only whether it runs")
	return cmd
}

// ask returns why it is not healthy: nothing if it is.
func (f *healthFlags) ask(cmd *cobra.Command) ([]string, error) {
	if f.client.timeout <= 0 {
		return nil, usagef("--timeout %v must be more than nothing", f.client.timeout)
	}
	ctx, cancel := within(cmd.Context(), f.client.timeout)
	defer cancel()
	if f.metrics == "" {
		return f.askNATS(ctx)
	}
	for _, flag := range []string{"node", "nats", "context", "cluster"} {
		if cmd.Flags().Changed(flag) {
			return nil, usagef("--metrics and --%s exclude each other: one process is asked over HTTP, or nodes over NATS", flag)
		}
	}
	if _, _, err := net.SplitHostPort(f.metrics); err != nil {
		return nil, usagef("--metrics %q: %w: it must be host:port, as --metrics-listen of the node", f.metrics, err)
	}
	return askHTTP(ctx, f.metrics, f.alive)
}

// askHTTP asks what listenMetrics serves.
func askHTTP(ctx context.Context, address string, alive bool) ([]string, error) {
	path := "/readyz"
	if alive {
		path = "/healthz"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return nil, usagef("--metrics %q: %w", address, err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy: it is this machine's
	response, err := client.Do(request)
	if err != nil {
		return nil, withStatus(statusUnavailable, fmt.Errorf("ask %s: %w: does the node run with --metrics-listen there?", address, err))
	}
	defer response.Body.Close()
	const most = 64 << 10
	body, err := io.ReadAll(io.LimitReader(response.Body, most))
	if err != nil {
		return nil, withStatus(statusUnavailable, fmt.Errorf("ask %s: read the answer: %w", address, err))
	}
	switch response.StatusCode {
	case http.StatusOK:
		return nil, nil
	case http.StatusServiceUnavailable:
		return strings.Split(strings.TrimSpace(string(body)), "\n"), nil
	}
	return nil, withStatus(statusUnavailable, fmt.Errorf("ask %s: %s is answered by %s: is it the --metrics-listen of a node?", address, path, response.Status))
}

// askNATS judges what the nodes answer, and names who does not.
func (f *healthFlags) askNATS(ctx context.Context) ([]string, error) {
	if f.node != "" && !natsToken.MatchString(f.node) {
		return nil, usagef("node id %q must be 1 to 64 letters, digits, '-' or '_'", f.node)
	}
	l, err := f.client.connect(ctx, "health")
	if err != nil {
		return nil, err
	}
	defer l.conn.Close()
	view, err := gatherStatus(ctx, l, raft.NodeID(f.node))
	if err != nil {
		return nil, err
	}
	check := (*health).ready
	if f.alive {
		check = (*health).alive
	}
	var reasons []string
	for _, s := range view.answers {
		if err := check(&health{id: string(s.ID), source: answered(s)}); err != nil {
			reasons = append(reasons, fmt.Sprintf("node %s: %v", s.ID, err))
		}
	}
	if f.node == "" {
		for _, id := range view.silent {
			reasons = append(reasons, fmt.Sprintf("node %s: it does not answer", id))
		}
	}
	return reasons, nil
}

func (a *app) printHealth(reasons []string) error {
	if a.json() {
		if err := a.printJSON(shownHealth{Healthy: len(reasons) == 0, Reasons: reasons}); err != nil {
			return err
		}
	} else if len(reasons) == 0 {
		return a.printf("ok\n")
	}
	if len(reasons) > 0 {
		return withStatus(statusFalse, fmt.Errorf("%w: %s", errUnhealthy, strings.Join(reasons, "; ")))
	}
	return nil
}

// answered is a node by its answer.
type answered node.Status

func (s answered) Status() node.Status { return node.Status(s) }

func (s answered) Err() error {
	if s.Error == "" {
		return nil
	}
	return errors.New(s.Error)
}
