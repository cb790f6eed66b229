package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node/raft"
	"quorate/node/sessions"
	"quorate/storage"
	"quorate/storage/objectstore"
)

// restored is what the node found on its disks.
type restored struct {
	applied     raft.LogID
	memberships []raft.MembershipAt
	// settings begins with that of the state, which is zero if none was ever changed.
	settings []raft.SettingAt
	log      raft.LogView
	lastTime int64
	sessions *sessions.Table
	// cluster is the one that the log belongs to; zero if it has taken part in none.
	cluster raft.ClusterID
	// local is the local snapshot that a state machine in memory was restored from, or zero.
	local raft.LogID
}

// identify reads whose directory this is, or makes a fresh one this node's: its incarnation is on disk before anyone is told.
func (n *Node) identify() error {
	id, ok := n.log.Identity()
	if !ok {
		if err := n.checkNew(); err != nil {
			return err
		}
		n.self = raft.Peer{ID: n.cfg.ID, Incarnation: raft.Incarnation(randomID())}
		return n.log.SetIdentity(storage.Identity{Cluster: n.cfg.Cluster, Peer: n.self})
	}
	if id.Cluster != n.cfg.Cluster || id.Peer.ID != n.cfg.ID {
		return fmt.Errorf("directory %s belongs to node %s of cluster %s: give this node a directory of its own, or start it as what the directory says",
			n.cfg.Dir, id.Peer.ID, id.Cluster)
	}
	n.self = id.Peer
	return nil
}

// checkNew refuses a state that no log goes with: which cluster it is of is not known, and so not whether this node's will have the same entries.
func (n *Node) checkNew() error {
	durable, ok := n.sm.(DurableStateMachine)
	if !ok {
		return nil
	}
	applied, err := durable.Applied()
	if err != nil {
		return fmt.Errorf("state machine: %w", err)
	}
	if applied.Last.Index > 0 {
		return fmt.Errorf("the state goes up to entry %v, and there is no log in %s: the log was lost, or a restore was cut off (then run that again); else start the node on a directory that is empty, state included", applied.Last, n.cfg.Dir)
	}
	return nil
}

// restore finds out where log and state machine stand.
func (n *Node) restore() (restored, error) {
	r := restored{sessions: sessions.New(), settings: make([]raft.SettingAt, 1)}
	if genesis, ok := n.log.Genesis(); ok {
		r.memberships = []raft.MembershipAt{{Membership: raft.NewMembership(genesis.Members...)}}
		r.cluster = genesis.ClusterID()
	}
	if durable, ok := n.sm.(DurableStateMachine); ok {
		applied, err := durable.Applied()
		if err != nil {
			return r, fmt.Errorf("state machine: %w", err)
		}
		r.applied = applied.Last
		if r.settings[0], err = n.cfg.settingIn(applied.System); err != nil {
			return r, err
		}
		if r.sessions, err = sessions.Load(applied.System); err != nil {
			return r, err
		}
		r.lastTime = logTime(applied.System)
		for _, record := range applied.System {
			if record.Key != membershipRecord {
				continue
			}
			at, err := decodeMembershipRecord(record)
			if err != nil {
				return r, err
			}
			r.memberships = []raft.MembershipAt{at}
		}
	}
	if err := n.restoreLocal(&r); err != nil {
		return r, err
	}
	if err := n.fitLog(r.applied); err != nil {
		return r, err
	}
	var err error
	if r.log, err = raft.NewLogView(n.log.Purged(), n.log.Last(), n.log.Term); err != nil {
		return r, fmt.Errorf("read the log: %w", err)
	}
	return r, n.scanLog(&r)
}

// restoreLocal brings a state machine in memory to the newest local snapshot of its cluster.
func (n *Node) restoreLocal(r *restored) error {
	if _, durable := n.sm.(DurableStateMachine); durable || n.cfg.Dir == "" {
		return nil
	}
	ctx := context.Background()
	dir := objectstore.NewDirectory(vfs.Default, filepath.Join(n.cfg.Dir, snapshotsDir))
	_, m, err := newestSnapshot(ctx, dir, r.cluster)
	if errors.Is(err, objectstore.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("local snapshot: %w", err)
	}
	meta, err := objectstore.ReadMeta(ctx, dir, m, objectstore.Retry{Patience: storePatience})
	if err != nil {
		return fmt.Errorf("local snapshot of %v: %w", m.Meta.Last, err)
	}
	if r.settings[0], err = n.cfg.settingIn(meta.System); err != nil {
		return fmt.Errorf("local snapshot of %v: %w", m.Meta.Last, err)
	}
	if r.sessions, err = sessions.Load(meta.System); err != nil {
		return fmt.Errorf("local snapshot of %v: %w", m.Meta.Last, err)
	}
	if err := restoreFrom(ctx, n.sm, dir, m, meta); err != nil {
		return fmt.Errorf("local snapshot of %v: %w", m.Meta.Last, err)
	}
	r.applied, r.local = m.Meta.Last, m.Meta.Last
	r.lastTime = logTime(meta.System)
	r.memberships = []raft.MembershipAt{{ID: m.Meta.MembershipID, Membership: m.Meta.Membership}}
	return nil
}

// fitLog makes state and log agree: it discards a log that the state has overtaken. Vote and identity stay.
func (n *Node) fitLog(applied raft.LogID) error {
	if genesis, ok := n.log.Genesis(); ok && isHalfRecovered(n.log, genesis, applied) {
		return errors.New("a recovery of this directory was cut off before its last step: recover it again (quorate recover), nothing of it is lost")
	}
	overtaken, err := isOvertaken(n.log, applied)
	if err != nil || !overtaken {
		return err
	}
	n.logger.Warn("the state is that of a snapshot which the log does not have: the log is discarded", "state", applied, "log_begins", n.log.Purged(), "log_ends", n.log.Last())
	if err := n.log.Reset(applied); err != nil {
		return fmt.Errorf("discard the log: %w", err)
	}
	return nil
}

// isOvertaken reports whether a state is ahead of its log, or contradicts it. It is so only when a snapshot was installed and the process
// ended before the log was reset: nothing of the log counts then. A state that is behind where its log begins has lost what is purged.
func isOvertaken(log storage.LogReader, applied raft.LogID) (bool, error) {
	if purged := log.Purged(); applied.Index < purged.Index {
		return false, fmt.Errorf("the state goes up to entry %v, but the log begins after %v: what lies between is lost here; remove this directory and replace the node, or restore state and log from one backup",
			applied, purged)
	}
	term, err := log.Term(applied.Index)
	if err != nil && !errors.Is(err, storage.ErrOutOfRange) {
		return false, fmt.Errorf("read the log: %w", err)
	}
	return err != nil || term != applied.Term, nil
}

// scanLog reads the entries that are not applied yet, for configurations, settings and the newest log time.
func (n *Node) scanLog(r *restored) error {
	last := n.log.Last().Index
	for index := max(min(r.applied.Index+1, last), n.log.Purged().Index+1); index <= last; {
		entries, err := n.log.Entries(nil, index, last+1, applyBatchBytes)
		if err != nil {
			return fmt.Errorf("read the log from index %d: %w", index, err)
		}
		for _, entry := range entries {
			r.lastTime = max(r.lastTime, entry.Time)
			if entry.ID.Index <= r.applied.Index {
				continue
			}
			if err := n.cfg.checkEntry(&entry); err != nil {
				return err
			}
			switch entry.Kind {
			case raft.EntryMembership:
				r.memberships = append(r.memberships, raft.MembershipAt{ID: entry.ID, Membership: entry.Membership})
			case raft.EntrySetting:
				r.settings = append(r.settings, raft.SettingAt{ID: entry.ID, Setting: *entry.Setting})
			}
		}
		index = entries[len(entries)-1].ID.Index + 1
	}
	return nil
}

func (n *Node) newCore(genesis storage.Genesis, r restored, syncing chan<- syncItem, group *sync.WaitGroup) *raftCore {
	if len(r.memberships) == 0 {
		r.memberships = []raft.MembershipAt{{Membership: raft.NewMembership(genesis.Members...)}}
	}
	engine := raft.New(raft.Config{
		Self:              n.self,
		Versions:          n.cfg.speaks(),
		HeartbeatInterval: n.cfg.HeartbeatInterval,
		ElectionTimeout:   n.cfg.ElectionTimeout,
		Rand:              rand.New(rand.NewPCG(randomID(), randomID())),
	}, raft.Restored{Vote: n.log.Vote(), Log: r.log, Committed: r.applied, Memberships: r.memberships, Settings: r.settings}, time.Now())
	return &raftCore{
		cfg:       n.cfg,
		self:      n.self,
		genesis:   genesis,
		engine:    engine,
		log:       n.log,
		sm:        n.sm,
		transport: n.links.transport,
		logger:    n.logger,
		in:        n.in,
		syncing:   syncing,
		workers:   map[uint64]*workerHandle{},
		group:     group,
		watch:     &n.watch,
		applied:   r.applied,
		sessions:  r.sessions,
		ended:     make(chan struct{}),
		fail:      n.fail,
		heard:     &n.heard,
		leased:    &n.leased,
		clock:     clock{began: time.Now()},
		metrics:   n.metrics,
		tracing:   newTracing(n.cfg.Telemetry, n.cfg.ID),

		fetchProgress:     &n.fetchProgress,
		appliedMembership: r.memberships[0],
		appliedSetting:    r.settings[0],
		lastTime:          r.lastTime,
		appliedTime:       r.lastTime,
		violations:        map[string]uint64{},
	}
}

func joinIDs(ids []raft.NodeID) string {
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(id))
	}
	return b.String()
}
