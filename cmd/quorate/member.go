package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nats-io/nats.go"
	"github.com/spf13/pflag"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/raft"
	"quorate/storage"
)

// stopTimeout is how long a node may take to stop in good order. It has nothing to lose: what it acknowledged is on disk.
const stopTimeout = 15 * time.Second

// What is in a node's directory.
const (
	logDir   = "log"   // the Raft log and vote
	stateDir = "state" // the key-value store
	natsDir  = "nats"  // JetStream, of an embedded NATS server
)

// memberConfig says which member to run.
type memberConfig struct {
	cluster string
	id      raft.NodeID
	members []raft.NodeID
	join    bool
	policy  nodePolicy
	dir     string
	url     string
	options []nats.Option
	logger  *slog.Logger
	observe *observation
}

// member is one running node with the key-value store on top.
type member struct {
	id      raft.NodeID
	node    *node.Node
	service *kv.Service
}

// startMember opens the directory and starts the node. It returns before NATS is reached: see node.Start.
func startMember(ctx context.Context, cfg memberConfig) (*member, error) {
	if err := checkMemberDir(cfg.dir); err != nil {
		return nil, err
	}
	logger := cfg.logger.With("cluster", cfg.cluster, "node", string(cfg.id))
	spans, err := startSpanPublisher(ctx, cfg)
	if err != nil {
		return nil, err
	}
	recorder, err := cfg.observe.telemetry(ctx, cfg.cluster, cfg.id, spans)
	if err != nil {
		return nil, err
	}
	store, err := kv.OpenStore(filepath.Join(cfg.dir, stateDir), kv.StoreOptions{Logger: logger})
	if err != nil {
		return nil, fmt.Errorf("start node %s: open its store: %w", cfg.id, err)
	}
	n, err := node.Start(ctx, node.Config{
		Cluster: cfg.cluster, ID: cfg.id, Members: cfg.members, Dir: filepath.Join(cfg.dir, logDir),
		URL: cfg.url, NATSOptions: cfg.options, Prefix: subjectPrefix, Logger: cfg.logger, Telemetry: recorder,
		Join: cfg.join, SnapshotEntries: cfg.policy.entries, SnapshotBytes: cfg.policy.bytes, KeepEntries: cfg.policy.keep,
		Priority: cfg.policy.priority, ReplaceAfter: cfg.policy.replaceAfter,
		CommandVersion: kv.CommandVersion,
	}, store) // takes the store over, also when it fails
	if err != nil {
		return nil, err
	}
	stop := func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		return n.Close(ctx)
	}
	service, err := kv.Serve(n, store, kv.ServiceOptions{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start node %s: serve its store: %w", cfg.id, err), stop())
	}
	m := &member{id: cfg.id, node: n, service: service}
	if err := cfg.observe.add(m, recorder); err != nil {
		return nil, errors.Join(fmt.Errorf("start node %s: measure its health: %w", cfg.id, err), service.Close(), stop())
	}
	return m, nil
}

// nodePolicy says when snapshots are taken, how much of the log stays, and who should lead. Zero means the default of package node.
type nodePolicy struct {
	entries, bytes, keep uint64
	priority             int
	replaceAfter         time.Duration
}

func (p *nodePolicy) add(flags *pflag.FlagSet) {
	flags.IntVar(&p.priority, "priority", 0, "how much this node should lead: a leader hands over to a voter with more, once that has caught up")
	flags.DurationVar(&p.replaceAfter, "replace-after", 0, "as leader, give the place of a voter that has been gone for so long to a learner that has caught up (default never)")
	flags.Uint64Var(&p.entries, "snapshot-entries", 0, "take a snapshot after so many log entries (default 1000000)")
	flags.Uint64Var(&p.bytes, "snapshot-bytes", 0, "take a snapshot after so many bytes of log (default 268435456)")
	flags.Uint64Var(&p.keep, "keep-entries", 0, "log entries before the newest snapshot that stay, for nodes that were away shortly (default 10000)")
}

// close stops the node: a leader hands over first, so that clients have the next one at once; then goes what its clients use, then the
// node itself. It blocks until it has ended, or the context has.
func (m *member) close(ctx context.Context) error {
	m.node.HandOver(ctx)
	return errors.Join(m.service.Close(), m.node.Close(ctx))
}

// checkMemberDir refuses a directory that somebody uses for something else.
func checkMemberDir(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := storage.MakeDir(vfs.Default, dir, 0o700); err != nil {
			return fmt.Errorf("make the directory of the node: %w", err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("open the directory of the node: %w", err)
	}
	ours := func(e os.DirEntry) bool {
		return slices.Contains([]string{logDir, stateDir, natsDir, "lost+found"}, e.Name())
	}
	if len(entries) > 0 && !slices.ContainsFunc(entries, ours) {
		return fmt.Errorf("directory %s is not empty and not that of a node: it has %s: choose another with --dir", dir, entries[0].Name())
	}
	return nil
}
