package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"quorate/node/raft"
	"quorate/node/sessions"
	"quorate/storage"
	"quorate/storage/objectstore"
	"quorate/storage/pebblelog"
)

// refoundGap lies between the last index of a cluster that was given up and the first of the one that takes its place: more than the lost
// members can have used, so that no index, and no revision, is used twice.
const refoundGap = 1 << 32

// Survivor is a node's directory of which the cluster is to be given up, or was not one yet.
type Survivor struct {
	// Cluster and ID are the names; Dir is where the log is (Config.Dir).
	Cluster string
	ID      raft.NodeID
	Dir     string
	// CommandVersion is Config.CommandVersion: what the cluster used must not be newer.
	CommandVersion uint32
	Logger         *slog.Logger
}

func (s *Survivor) config() Config { return Config{CommandVersion: s.CommandVersion} }

// Recovery says what a node's directory has, and what becomes of it.
type Recovery struct {
	// Last is the newest entry that the directory has, Applied that of the state.
	Last, Applied raft.LogID
	// Discard says that nothing of the log counts: the state is that of a snapshot which the log does not have.
	Discard bool
	// Membership in force, and the node's vote.
	Membership string
	Vote       raft.Vote
	// Old and New cluster id.
	Old, New raft.ClusterID
	// Begin is the log id after which the new cluster's log begins.
	Begin raft.LogID
}

// Recover makes the directory of a survivor the first node of a new cluster, when the old one has lost its quorum for good: it applies all
// of its log, committed or not, to the state, unless the state contradicts the log or is ahead of it, and begins a log, a membership of
// this node alone, an incarnation and a cluster id of its own. Nodes of the old cluster cannot come back into it. What was acknowledged and this node did not have is lost. The node must not
// run; it takes over sm and closes it. With dry it only looks.
//
// A Recover that was cut off goes on when it is called again. One that does not speak what the cluster used changes nothing, and its error wraps
// ErrUpgrade.
func Recover(ctx context.Context, s Survivor, sm DurableStateMachine, dry bool) (r Recovery, err error) {
	defer func() {
		if err = errors.Join(err, sm.Close()); err != nil {
			err = fmt.Errorf("recover %s: %w", s.Dir, err)
		}
	}()
	log, err := openSurvivor(s)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	identity, ok := log.Identity()
	genesis, founded := log.Genesis()
	switch {
	case !ok || !founded:
		return r, errors.New("the directory is not that of a node that has taken part in a cluster")
	case identity.Cluster != s.Cluster || identity.Peer.ID != s.ID:
		return r, fmt.Errorf("the directory belongs to node %s of cluster %s", identity.Peer.ID, identity.Cluster)
	}
	applied, err := sm.Applied()
	if err != nil {
		return r, fmt.Errorf("state machine: %w", err)
	}
	core, err := offlineCore(s.config(), log, sm, applied)
	if err != nil {
		return r, err
	}
	r = Recovery{Last: log.Last(), Applied: applied.Last, Vote: log.Vote(), Old: genesis.ClusterID(), Membership: core.membershipNow(genesis)}
	half := isHalfRecovered(log, genesis, applied.Last)
	if half {
		r.Begin = r.Last
	} else {
		if r.Discard, err = isOvertaken(log, applied.Last); err != nil {
			return r, err
		}
		if r.Discard {
			r.Last = applied.Last
		}
		r.Begin = raft.LogID{Term: max(r.Last.Term, r.Vote.Term) + 1, Index: r.Last.Index + refoundGap}
	}
	if dry {
		return r, nil
	}
	if half {
		r.New = r.Old
		return r, core.begin(ctx, sm, raft.MembershipAt{ID: r.Begin, Membership: raft.NewMembership(identity.Peer)})
	}
	if r.Discard { // before Refound, so that the gap after the state tells a Recover that was cut off
		if err := log.Reset(applied.Last); err != nil {
			return r, err
		}
	}
	for _, f := range []func([]raft.Entry) error{core.checkEntries, core.applyBatch} { // nothing is applied if not everything can be
		if err := core.eachUnapplied(ctx, f); err != nil {
			return r, err
		}
	}
	if err := core.noteLogTime(); err != nil {
		return r, err
	}
	if err := sm.Sync(ctx); err != nil {
		return r, fmt.Errorf("state machine: %w", err)
	}
	peer := raft.Peer{ID: s.ID, Incarnation: raft.Incarnation(randomID())}
	founding := newFounding(s.Cluster, peer, genesis.MaxEntryBytes, r.Begin)
	if err := log.Refound(founding); err != nil {
		return r, err
	}
	r.New = founding.Genesis.ClusterID()
	return r, core.begin(ctx, sm, raft.MembershipAt{ID: r.Begin, Membership: raft.NewMembership(peer)})
}

// isHalfRecovered reports whether a Recover was cut off between its two last steps: the log is the new cluster's, and the state the old one's.
func isHalfRecovered(log storage.LogReader, genesis storage.Genesis, applied raft.LogID) bool {
	last := log.Last()
	return log.Purged() == last && applied.Index+refoundGap == last.Index && len(genesis.Members) == 1
}

func newFounding(cluster string, peer raft.Peer, maxEntryBytes uint64, begin raft.LogID) pebblelog.Refounding {
	return pebblelog.Refounding{
		Identity: storage.Identity{Cluster: cluster, Peer: peer},
		Genesis:  storage.NewGenesis(cluster, []raft.Peer{peer}, maxEntryBytes),
		Vote:     raft.Vote{Term: begin.Term},
		Begin:    begin,
	}
}

func openSurvivor(s Survivor) (*pebblelog.Log, error) {
	if s.Logger == nil {
		s.Logger = slog.Default()
	}
	return pebblelog.OpenLog(s.Dir, pebblelog.Options{Logger: s.Logger})
}

// offlineCore applies a log without running it.
func offlineCore(cfg Config, log storage.LogStore, sm DurableStateMachine, applied Applied) (*raftCore, error) {
	if _, err := cfg.settingIn(applied.System); err != nil {
		return nil, err
	}
	table, err := sessions.Load(applied.System)
	if err != nil {
		return nil, err
	}
	c := &raftCore{cfg: cfg, log: log, sm: sm, sessions: table, applied: applied.Last, appliedTime: logTime(applied.System)}
	for _, record := range applied.System {
		if record.Key == membershipRecord {
			if c.appliedMembership, err = decodeMembershipRecord(record); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// membershipNow tells the newest membership that was applied, in words.
func (c *raftCore) membershipNow(genesis storage.Genesis) string {
	if c.appliedMembership.Membership != nil {
		return c.appliedMembership.Membership.String()
	}
	return raft.NewMembership(genesis.Members...).String()
}

// eachUnapplied gives f the entries that are not applied yet, in batches.
func (c *raftCore) eachUnapplied(ctx context.Context, f func([]raft.Entry) error) error {
	next, last := c.applied.Index+1, c.log.Last().Index
	for next <= last {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		entries, err := c.log.Entries(nil, next, last+1, applyBatchBytes)
		if err != nil {
			return fmt.Errorf("read the log from index %d: %w", next, err)
		}
		if err := f(entries); err != nil {
			return err
		}
		next += uint64(len(entries))
	}
	return nil
}

func (c *raftCore) checkEntries(entries []raft.Entry) error {
	for i := range entries {
		if err := c.cfg.checkEntry(&entries[i]); err != nil {
			return err
		}
	}
	return nil
}

// noteLogTime takes the log time from the log's last entry, which may have been applied before.
func (c *raftCore) noteLogTime() error {
	last := c.log.Last().Index
	if last == c.log.Purged().Index {
		return nil
	}
	entries, err := c.log.Entries(nil, last, last+1, 1)
	if err != nil {
		return fmt.Errorf("read the log's last entry: %w", err)
	}
	c.appliedTime = max(c.appliedTime, entries[0].Time)
	return nil
}

// begin puts the state where the new log begins. Time goes on from where it was: commands and sessions go by it.
func (c *raftCore) begin(ctx context.Context, sm DurableStateMachine, at raft.MembershipAt) error {
	record, err := encodeMembershipRecord(at)
	if err != nil {
		return err
	}
	if _, err := applySafely(sm, Batch{Last: at.ID, System: []SystemRecord{record, encodeTimeRecord(c.appliedTime)}}); err != nil {
		return fmt.Errorf("state machine: %w", err)
	}
	if err := sm.Sync(ctx); err != nil {
		return fmt.Errorf("state machine: %w", err)
	}
	return nil
}

// RestoreFrom makes an empty directory the first node of a new cluster whose state is that of a snapshot: one in a backup file, or in the
// object store when every disk was lost. It has a cluster id and an incarnation of its own, and its log begins well after the snapshot.
// The node takes over sm, which must be empty, and closes it. If it does not speak what that cluster used, nothing is changed, and the error wraps
// ErrUpgrade. A RestoreFrom that was cut off is called again with the same snapshot.
func RestoreFrom(ctx context.Context, s Survivor, sm DurableStateMachine, from objectstore.Blobs, ref storage.SnapshotRef, maxEntryBytes uint64) (r Recovery, err error) {
	defer func() {
		if err = errors.Join(err, sm.Close()); err != nil {
			err = fmt.Errorf("restore into %s: %w", s.Dir, err)
		}
	}()
	log, err := openSurvivor(s)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if identity, ok := log.Identity(); ok {
		return r, fmt.Errorf("the directory belongs to node %s of cluster %s: restore into an empty one", identity.Peer.ID, identity.Cluster)
	}
	applied, err := sm.Applied()
	if err != nil {
		return r, fmt.Errorf("state machine: %w", err)
	}
	m, err := objectstore.Open(ctx, from, ref)
	if err != nil {
		return r, err
	}
	old, err := objectstore.ReadMeta(ctx, from, m, objectstore.Retry{})
	if err != nil {
		return r, err
	}
	cfg := s.config()
	if _, err := cfg.settingIn(old.System); err != nil {
		return r, err
	}
	r = Recovery{Last: m.Meta.Last, Applied: m.Meta.Last, Old: m.Cluster, Membership: m.Meta.Membership.String()}
	r.Begin = raft.LogID{Term: m.Meta.Last.Term + 1, Index: m.Meta.Last.Index + refoundGap}
	if err := s.checkEmpty(applied, r.Begin); err != nil {
		return r, err
	}
	peer := raft.Peer{ID: s.ID, Incarnation: raft.Incarnation(randomID())}
	at := raft.MembershipAt{ID: r.Begin, Membership: raft.NewMembership(peer)}
	record, err := encodeMembershipRecord(at)
	if err != nil {
		return r, err
	}
	meta := storage.SnapshotMeta{Last: r.Begin, Membership: at.Membership, MembershipID: at.ID, System: []SystemRecord{record}}
	for _, record := range old.System {
		if record.Key != membershipRecord && !sessions.IsOnce(record) {
			meta.System = append(meta.System, record)
		}
	}
	stream := objectstore.Reader(ctx, from, m, objectstore.Retry{})
	if err := errors.Join(restoreSafely(ctx, sm, meta, stream), stream.Close()); err != nil {
		return r, err
	}
	founding := newFounding(s.Cluster, peer, maxEntryBytes, r.Begin)
	r.New = founding.Genesis.ClusterID()
	return r, log.Refound(founding)
}

// checkEmpty refuses a state that may be worth something. Restored already, of a directory that has no log, it is what a RestoreFrom has left that
// was cut off between its two steps: nothing was applied since this node became the only member.
func (s *Survivor) checkEmpty(applied Applied, begin raft.LogID) error {
	if applied.Last.Index == 0 {
		return nil
	}
	for _, record := range applied.System {
		if record.Key != membershipRecord {
			continue
		}
		at, err := decodeMembershipRecord(record)
		if err != nil {
			return err
		}
		if at.ID != applied.Last || len(at.Membership.Members) != 1 || at.Membership.Members[0].ID != s.ID {
			continue
		}
		if applied.Last == begin {
			return nil
		}
		return errors.New("the restore of another snapshot was cut off here: remove the node's directory, and restore again")
	}
	return fmt.Errorf("the state goes up to entry %v already: restore into an empty directory", applied.Last)
}

func restoreSafely(ctx context.Context, sm StateMachine, meta SnapshotMeta, stream io.Reader) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("state machine: panic: %v", p)
		}
	}()
	if err := sm.Restore(ctx, meta, stream); err != nil {
		return fmt.Errorf("state machine: %w", err)
	}
	return nil
}
