package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"quorate/node"
	"quorate/node/raft"
	"quorate/transport/natsrpc"
)

// serveFlags say which node to run.
type serveFlags struct {
	cluster string
	id      string
	members []string
	dir     string
	join    bool
	policy  nodePolicy
	nats    natsFlags
	embed   embedFlags
	log     logFlags
	observe observeFlags
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run one node of a cluster",
		Long: `Run one node of a cluster, with the key-value store, over a NATS server that is there (--nats, $NATS_URL or --context) or
one inside of this process (--embed).

At the first start the members agree on the genesis of the cluster, in any order of starts; the log says for whom a node waits.
Every member is given the same --members. Later starts ignore --members. A directory belongs to one node of one cluster
for ever. If NATS cannot be reached, the node tries again until it can.

A node that is not among the first members is started with --join in place of --members, and added with quorate member add.

With --embed, the NATS servers of the nodes connect to each other: --route-listen is where one listens to the others, --route
names each of the others'. They ask nobody for credentials: keep both ports in a network that you trust.

SIGINT or SIGTERM stop the node in good order, a second one at once; either loses nothing. The log goes to standard error.`,
		Example: `  quorate serve --cluster prod --id n1 --members n1,n2,n3 --dir /var/lib/quorate --nats nats://nats.example:4222
  quorate serve --cluster prod --id n4 --join --dir /var/lib/quorate --nats nats://nats.example:4222
  quorate serve --cluster prod --id n1 --members n1,n2,n3 --dir ./n1 --embed --listen 127.0.0.1:4222 \
    --route-listen 127.0.0.1:6222 --route nats://127.0.0.1:6223,nats://127.0.0.1:6224`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			logger, err := f.log.logger(a.stderr)
			if err != nil {
				return err
			}
			return f.run(cmd.Context(), logger)
		},
	}
	flags := cmd.Flags()
	addClusterFlag(flags, &f.cluster)
	flags.StringVar(&f.id, "id", "", "name of this node (required)")
	flags.StringSliceVar(&f.members, "members", nil, "names of the cluster's first members, this node among them; needed at the first start only")
	flags.StringVar(&f.dir, "dir", "", "directory of this node, and of no other (required)")
	flags.BoolVar(&f.join, "join", false, "this node is not among the first members: on an empty directory, wait until it is added (quorate member add)")
	f.policy.add(flags)
	f.nats.add(flags)
	f.embed.add(cmd)
	f.log.add(flags, "info")
	f.observe.add(flags)
	return cmd
}

func (f *serveFlags) check(cmd *cobra.Command) error {
	cluster, err := clusterOrDefault(f.cluster)
	if err != nil {
		return err
	}
	f.cluster = cluster
	if f.id == "" {
		return usagef("--id is missing: the name of this node, one of --members")
	}
	if f.dir == "" {
		return usagef("--dir is missing: a directory for this node alone")
	}
	for i, name := range f.members {
		f.members[i] = strings.TrimSpace(name)
	}
	for _, name := range append([]string{f.id}, f.members...) {
		if !natsToken.MatchString(name) {
			return usagef("node name %q must be 1 to 64 letters, digits, '-' or '_'", name)
		}
	}
	if f.join && len(f.members) > 0 {
		return usagef("--join and --members exclude each other: a node is among the first members, or it is added later")
	}
	if len(f.members) > 0 && !slices.Contains(f.members, f.id) {
		return usagef("--members %s do not include this node, %s", strings.Join(f.members, ","), f.id)
	}
	if sorted := slices.Sorted(slices.Values(f.members)); len(slices.Compact(sorted)) != len(f.members) {
		return usagef("--members %s name a node twice", strings.Join(f.members, ","))
	}
	if err := f.observe.check(); err != nil {
		return err
	}
	return f.embed.check(cmd)
}

// run serves until the context ends, or the node fails.
func (f *serveFlags) run(ctx context.Context, logger *slog.Logger) (err error) {
	target, err := f.nats.target()
	if err != nil {
		return err
	}
	if err := checkMemberDir(f.dir); err != nil {
		return err
	}
	if f.embed.embed {
		server, err := f.embed.start(f.cluster, f.id, f.dir, logger)
		if err != nil {
			return err
		}
		defer server.Close()
		target = natsTarget{url: server.ClientURL()}
	}
	members := make([]raft.NodeID, len(f.members))
	for i, name := range f.members {
		members[i] = raft.NodeID(name)
	}
	logger.Info("starting", "cluster", f.cluster, "node", f.id, "dir", f.dir, "nats", natsrpc.RedactURLs(target.url), "version", readBuildVersion().Version)
	observation, err := f.observe.start(logger)
	if err != nil {
		return err
	}
	defer observation.end(ctx)
	m, err := startMember(ctx, memberConfig{
		cluster: f.cluster, id: raft.NodeID(f.id), members: members, join: f.join, policy: f.policy, dir: f.dir, url: target.url, options: target.options, logger: logger, observe: observation,
	})
	if errors.Is(err, node.ErrConfig) {
		return &usageError{err: err}
	}
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		logger.Info("stopping; a second signal stops at once")
	case <-m.node.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := m.close(stop); errors.Is(err, node.ErrConfig) { // found when the directory's cluster was looked for
		return &usageError{err: err}
	} else if err != nil {
		// A node that has failed lost nothing that it acknowledged, but somebody has to look at it.
		return withStatus(statusFailed, fmt.Errorf("node %s of cluster %s: %w", f.id, f.cluster, err))
	}
	return nil
}
