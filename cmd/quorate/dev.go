package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"quorate/node/raft"
)

// devFlags say what dev cluster to run.
type devFlags struct {
	cluster    string
	nodes      int
	port       int
	dir        string
	ephemeral  bool
	maxPayload string
	log        logFlags
	observe    observeFlags
}

// maxDevNodes keeps a slip of the finger from starting hundreds of nodes.
const maxDevNodes = 15

// devStartTimeout is how long a dev cluster may take to get a leader. It is seconds even on a slow machine.
const devStartTimeout = time.Minute

func (a *app) devCommand() *cobra.Command {
	var f devFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole cluster on this machine, to try things with",
		Long: `Run a NATS server (JetStream on) and a cluster of three nodes in this process, on 127.0.0.1. Everything is real: each node
has its own directory, and a write is on disk before it is acknowledged.

The data stays in --dir, and is there again at the next start. Ctrl-C stops in good order, a second one at once; either loses
nothing.

With --output json: one line with url, cluster, leader, nodes and dir when the cluster is ready.`,
		Example: `  quorate dev
  quorate dev --port 4223 --cluster test
  quorate dev --ephemeral --nodes 5 --port 0`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cluster, err := clusterOrDefault(f.cluster)
			if err != nil {
				return err
			}
			f.cluster = cluster
			return a.dev(cmd, &f)
		},
	}
	flags := cmd.Flags()
	addClusterFlag(flags, &f.cluster)
	flags.IntVar(&f.nodes, "nodes", 3, "how many nodes")
	flags.IntVar(&f.port, "port", 4222, "port of the NATS server on 127.0.0.1; 0 picks a free one")
	flags.StringVar(&f.dir, "dir", "", "directory for the data (default: quorate/CLUSTER in the user's state folder)")
	flags.BoolVar(&f.ephemeral, "ephemeral", false, "keep the data in a temporary directory, and remove it at the end")
	addMaxPayloadFlag(cmd, &f.maxPayload, "")
	f.log.add(flags, "warn")
	f.observe.add(flags)
	return cmd
}

// dev runs the cluster until the context ends or a node fails.
func (a *app) dev(cmd *cobra.Command, f *devFlags) (err error) {
	ctx := cmd.Context()
	if f.nodes < 1 || f.nodes > maxDevNodes {
		return usagef("--nodes %d must be from 1 to %d", f.nodes, maxDevNodes)
	}
	if f.port < 0 || f.port > 65535 {
		return usagef("--port %d must be from 1 to 65535; 0 picks a free one", f.port)
	}
	if err := f.observe.check(); err != nil {
		return err
	}
	maxPayload, err := parseMaxPayload(f.maxPayload)
	if err != nil {
		return err
	}
	logger, err := f.log.logger(a.stderr)
	if err != nil {
		return err
	}
	dir, err := f.openDir(map[string]bool{
		"nodes":   cmd.Flags().Changed("nodes"),
		"cluster": cmd.Flags().Changed("cluster"),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	if len(dir.layout.Nodes) != f.nodes {
		fmt.Fprintf(a.stderr, "The directory was made with %d nodes: so many start.\n", len(dir.layout.Nodes))
	}
	if dir.layout.Cluster != f.cluster {
		fmt.Fprintf(a.stderr, "The directory is that of cluster %s: that one starts.\n", dir.layout.Cluster)
	}

	observation, err := f.observe.start(logger)
	if err != nil {
		return errors.Join(err, dir.forget())
	}
	defer observation.end(ctx)
	c, err := startDevCluster(ctx, dir, f.port, maxPayload, observation, logger)
	if err != nil {
		return errors.Join(err, dir.forget())
	}
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err = errors.Join(err, c.close(stop))
	}()
	starting, cancel := context.WithTimeout(ctx, devStartTimeout)
	defer cancel()
	leader, err := c.waitReady(starting)
	if err != nil {
		return err
	}
	if err := a.printDev(c, leader); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.stderr, "\nStopping. Ctrl-C again stops at once.")
		return nil
	case failed := <-c.failed:
		return withStatus(statusFailed, fmt.Errorf("node %s stopped by itself", failed.id)) // closing it tells why
	}
}

func (f *devFlags) openDir(insist map[string]bool) (*devDir, error) {
	want := devLayout{Format: devFormat, Cluster: f.cluster}
	for i := range f.nodes {
		want.Nodes = append(want.Nodes, raft.NodeID(fmt.Sprintf("n%d", i+1)))
	}
	if f.ephemeral {
		if f.dir != "" {
			return nil, usagef("--ephemeral and --dir exclude each other: the one removes its data, the other keeps it")
		}
		return ephemeralDevDir(want)
	}
	if f.dir == "" {
		dir, err := defaultDevDir(f.cluster)
		if err != nil {
			return nil, err
		}
		f.dir = dir
	}
	return openDevDir(f.dir, want, insist)
}
