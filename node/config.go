package node

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node/raft"
	"quorate/storage"
	"quorate/storage/objectstore"
	"quorate/telemetry"
	"quorate/transport"
)

// Config says which node to start. The zero value of every optional field means its default.
type Config struct {
	// Cluster is the cluster's name: a NATS subject token (letters, digits, '-' and '_').
	Cluster string
	// ID is the node's name, unique in the cluster: a NATS subject token too.
	ID raft.NodeID
	// Members lists the first voters by name, this node among them. It matters at the first start only, when the
	// members agree on the genesis of the cluster; later starts ignore it.
	Members []raft.NodeID
	// Dir is where the node keeps its log. It belongs to this node alone. Not needed if Log is given.
	Dir string
	// URL of the NATS server or servers, separated by commas. Default: nats://127.0.0.1:4222.
	URL string
	// NATSOptions are added to the node's own when it connects: credentials, TLS and the like.
	NATSOptions []nats.Option
	// Prefix is the first token of every subject. Default: "quorate".
	Prefix string
	// Logger gets what an operator must know. Default: slog.Default().
	Logger *slog.Logger
	// Telemetry gets spans and metrics of what the node does. Default: none, at no cost.
	Telemetry *telemetry.Telemetry

	// HeartbeatInterval is how often a leader makes itself known. Default: 50 ms.
	HeartbeatInterval time.Duration
	// ElectionTimeout is the least time without a leader after which a node stands for election when NATS does not
	// tell that the leader is gone; the actual time is drawn from [ElectionTimeout, 2*ElectionTimeout) each time.
	// Default: 500 ms. At least four heartbeat intervals.
	ElectionTimeout time.Duration
	// MaxInFlight is how many append messages may be under way to one target. Default: 4.
	MaxInFlight int
	// MaxInFlightBytes is how many bytes of entries may be under way to one target. Default: 8 MiB.
	MaxInFlightBytes int
	// MaxUncommittedBytes is how much may be proposed and not yet committed. Beyond it proposals wait, or get ErrBusy.
	// Default: 64 MiB.
	MaxUncommittedBytes int

	// SessionIdle is how much log time may pass between the proposals of a Session before it expires. Default: 1 h.
	SessionIdle time.Duration
	// SnapshotEntries and SnapshotBytes: a leader builds a snapshot when so much was appended to its log since the last one. Defaults:
	// 1,000,000 entries, 256 MiB.
	SnapshotEntries, SnapshotBytes uint64
	// SnapshotRate is how many bytes of state a second a snapshot builder reads at most, so that building one does not slow writes down.
	// Default: 32 MiB.
	SnapshotRate int
	// KeepEntries is how many entries before the newest snapshot stay in the log, so that a follower that was away for a short time
	// need not fetch a snapshot. Default: 10,000.
	KeepEntries uint64

	// Priority is how much this node should lead, compared with the others: a leader hands over to a voter with a greater one, when that has
	// caught up. It changes who leads in the end, not who may win an election. Default: 0. At most 1,000 either way.
	Priority int
	// ReplaceAfter: when a voter has not answered for so long, and a learner that has caught up stands by, the leader gives the learner the
	// voter's place. Zero, the default: never.
	ReplaceAfter time.Duration
	// SnapshotReplicas is how many JetStream servers keep the snapshots' bucket, when it is made. Default: 1.
	SnapshotReplicas int

	// CommandVersion is the newest version of the state machine's commands that this node can apply, counted from zero. Raise it with each
	// release that adds a command or changes what one means, and propose such a command once Node.Versions says that the cluster has come so far:
	// then every member can apply it, and one that cannot stops before it meets one.
	CommandVersion uint32

	// NoForwarding: a proposal or linearizable read at a node that does not lead fails with *NotLeaderError, in place of being handed on
	// to the leader.
	NoForwarding bool
	// Join: this node was not among the first members. On an empty directory it waits until the cluster adds it.
	Join bool

	// Snapshots overrides where the cluster's snapshots are kept: the object store bucket PREFIX-CLUSTER of the NATS server.
	Snapshots objectstore.Blobs
	// Log overrides the log store that is opened in Dir. The node closes it.
	Log storage.LogStore
	// Transport overrides the NATS transport. The node closes it. Without NATS there is no status subject either.
	Transport func(self raft.Peer, boot uint64) (transport.Transport, error)
}

const maxPriority = 1000

// ErrConfig is wrapped by every error about a Config that cannot work.
var ErrConfig = errors.New("configuration")

var token = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (c *Config) setDefaults() error {
	if !token.MatchString(c.Cluster) {
		return fmt.Errorf("%w: cluster name %q must be 1 to 64 letters, digits, '-' or '_'", ErrConfig, c.Cluster)
	}
	if !token.MatchString(string(c.ID)) {
		return fmt.Errorf("%w: node id %q must be 1 to 64 letters, digits, '-' or '_'", ErrConfig, c.ID)
	}
	seen := map[raft.NodeID]bool{}
	for _, id := range c.Members {
		if !token.MatchString(string(id)) {
			return fmt.Errorf("%w: member id %q must be 1 to 64 letters, digits, '-' or '_'", ErrConfig, id)
		}
		if seen[id] {
			return fmt.Errorf("%w: member %s is listed twice", ErrConfig, id)
		}
		seen[id] = true
	}
	if len(c.Members) > 0 && !seen[c.ID] {
		return fmt.Errorf("%w: members %v do not include this node, %s", ErrConfig, c.Members, c.ID)
	}
	if c.Dir == "" && c.Log == nil {
		return fmt.Errorf("%w: no directory for the log", ErrConfig)
	}
	setDefault(&c.URL, nats.DefaultURL)
	setDefault(&c.Prefix, "quorate")
	setDefault(&c.HeartbeatInterval, 50*time.Millisecond)
	setDefault(&c.ElectionTimeout, 500*time.Millisecond)
	setDefault(&c.SessionIdle, time.Hour)
	setDefault(&c.SnapshotEntries, 1_000_000)
	setDefault(&c.SnapshotBytes, 256<<20)
	setDefault(&c.SnapshotRate, 32<<20)
	setDefault(&c.KeepEntries, 10_000)
	setDefault(&c.MaxInFlight, 4)
	setDefault(&c.MaxInFlightBytes, 8<<20)
	setDefault(&c.MaxUncommittedBytes, 64<<20)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if min(c.HeartbeatInterval, c.ElectionTimeout, c.SessionIdle, c.ReplaceAfter) < 0 || min(c.SnapshotRate, c.MaxInFlight, c.MaxInFlightBytes, c.MaxUncommittedBytes) < 0 {
		return fmt.Errorf("%w: a time or a size is negative", ErrConfig)
	}
	if c.Priority > maxPriority || c.Priority < -maxPriority {
		return fmt.Errorf("%w: priority %d is beyond %d", ErrConfig, c.Priority, maxPriority)
	}
	if c.ElectionTimeout < 4*c.HeartbeatInterval {
		return fmt.Errorf("%w: election timeout %v is less than four heartbeat intervals of %v",
			ErrConfig, c.ElectionTimeout, c.HeartbeatInterval)
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
