package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node"
	"quorate/node/raft"
	"quorate/storage/objectstore"
)

// talker answers each command with its number and much more.
type talker struct {
	*journal
	extra int
}

func (m *talker) Apply(batch node.Batch) ([][]byte, error) {
	results, err := m.journal.Apply(batch)
	for i := range results {
		results[i] = append(results[i], bytes.Repeat([]byte{'.'}, m.extra)...)
	}
	return results, err
}

// durableTalker keeps its state as long as the test lasts, prepares what it restores, and stores the node's records.
type durableTalker struct {
	talker
	last   raft.LogID
	system map[string][]byte
}

func newDurableTalker(j *journal, extra int) *durableTalker {
	return &durableTalker{talker: talker{j, extra}, system: map[string][]byte{}}
}

func (m *durableTalker) store(last raft.LogID, records []node.SystemRecord) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = last
	for _, r := range records {
		m.system[r.Key] = r.Value
	}
}

func (m *durableTalker) Apply(batch node.Batch) ([][]byte, error) {
	results, err := m.talker.Apply(batch)
	if err == nil {
		m.store(batch.Last, batch.Records(results))
	}
	return results, err
}

func (m *durableTalker) Applied() (node.Applied, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	applied := node.Applied{Last: m.last}
	for key, value := range m.system {
		if len(value) > 0 {
			applied.System = append(applied.System, node.SystemRecord{Key: key, Value: value})
		}
	}
	return applied, nil
}

func (m *durableTalker) Sync(context.Context) error { return nil }

func (m *durableTalker) Restore(ctx context.Context, meta node.SnapshotMeta, r io.Reader) error {
	if err := m.journal.Restore(ctx, meta, r); err != nil {
		return err
	}
	clear(m.system)
	m.store(meta.Last, meta.System)
	return nil
}

func (m *durableTalker) Stage(_ context.Context, meta node.SnapshotMeta, r io.Reader) (node.Staged, error) {
	state, err := io.ReadAll(r)
	return &stagedTalker{m, meta, state}, err
}

type stagedTalker struct {
	to    *durableTalker
	meta  node.SnapshotMeta
	state []byte
}

func (s *stagedTalker) Install() error {
	return s.to.Restore(context.Background(), s.meta, bytes.NewReader(s.state))
}
func (s *stagedTalker) Discard() error { return nil }

// asked is a session of which no result was acknowledged.
type asked struct {
	session uint64
	results [][]byte
}

func submit(t *testing.T, p *node.Pending, err error) node.Result {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.Wait(within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func ask(t *testing.T, n *node.Node, commands int) asked {
	t.Helper()
	p, err := n.SubmitSession(time.Hour)
	a := asked{session: submit(t, p, err).ID.Index}
	for i := range commands {
		p, err := n.SubmitTagged(fmt.Append(nil, "c", i), a.tag(i))
		a.results = append(a.results, submit(t, p, err).Value)
	}
	return a
}

func (a *asked) tag(i int) node.Tag {
	return node.Tag{Session: a.session, Sequence: uint64(i) + 1, LowWater: 1}
}

// again has a leader answer retries, by the first results.
func (a *asked) again(t *testing.T, n *node.Node) {
	t.Helper()
	for i, want := range a.results {
		p, err := n.SubmitTagged(fmt.Append(nil, "again", i), a.tag(i))
		if got := submit(t, p, err).Value; !bytes.Equal(got, want) {
			t.Fatalf("%s answers command %d with %.20q, %d bytes, not %.20q, %d bytes", n.Config().ID, i, got, len(got), want, len(want))
		}
	}
}

// TestSessionsComeWithASnapshotWhateverTheirSize: their results are in its manifest or beside it, it is fetched from the object store or
// from the node that built it, and the state machine is in memory or durable.
func TestSessionsComeWithASnapshotWhateverTheirSize(t *testing.T) {
	t.Parallel()
	for _, size := range []int{10, 64 << 10} {
		for _, jetStream := range []bool{true, false} {
			for _, durable := range []bool{true, false} {
				t.Run(fmt.Sprintf("results of %d bytes, JetStream %t, durable %t", size, jetStream, durable), func(t *testing.T) {
					fetchSessions(t, size, jetStream, durable)
				})
			}
		}
	}
}

func fetchSessions(t *testing.T, size int, jetStream, durable bool) {
	c := newCluster(t, "n1")
	if jetStream {
		c = newStoringCluster(t, "n1")
		c.tune = nil
	}
	machines := map[raft.NodeID]*durableTalker{} // they outlive a restart
	machine := func(id raft.NodeID, j *journal) node.StateMachine {
		if !durable {
			return &talker{j, size}
		}
		if machines[id] == nil {
			machines[id] = newDurableTalker(j, size)
		}
		return machines[id]
	}
	c.startAs(machine, "n1")
	first := c.leader()
	a := ask(t, first, 20)
	ctx := within(t, 60*time.Second)
	if _, err := first.Snapshot(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Purge(ctx, math.MaxUint64); err != nil {
		t.Fatal(err)
	}
	startJoining := func(id raft.NodeID) {
		c.tune = func(cfg *node.Config) { cfg.Members, cfg.Join = nil, true }
		c.startAs(machine, id)
		c.tune = nil
	}
	startJoining("n2")
	if _, err := first.ChangeMembership(ctx, node.MembershipChange{Voters: []raft.NodeID{"n2"}}); err != nil {
		t.Fatal(err)
	}
	serves := func(s node.Status) bool { return s.Serving }
	if s, err := c.nodes["n2"].Wait(ctx, serves); err != nil || s.Snapshot.InstalledIndex == 0 {
		t.Fatalf("%+v, %v", s.Snapshot, err)
	}
	a.again(t, c.nodes["n2"])
	c.stop("n2")
	startJoining("n2")
	if _, err := c.nodes["n2"].Wait(ctx, serves); err != nil {
		t.Fatal(err)
	}
	a.again(t, c.nodes["n2"])
}

// TestSessionsAreRestoredFromABackupWhateverTheirSize: a client of the lost cluster gets its first results from the new one.
func TestSessionsAreRestoredFromABackupWhateverTheirSize(t *testing.T) {
	for _, size := range []int{10, 64 << 10} {
		t.Run(fmt.Sprintf("results of %d bytes", size), func(t *testing.T) {
			c := newCluster(t, "n1")
			bucket := objectstore.NewDirectory(vfs.NewMem(), "bucket")
			c.tune = func(cfg *node.Config) { cfg.Snapshots = bucket }
			c.startAs(func(_ raft.NodeID, j *journal) node.StateMachine { return newDurableTalker(j, size) }, "n1")
			a := ask(t, c.leader(), 20)
			ctx := within(t, 60*time.Second)
			ref, err := c.nodes["n1"].Snapshot(ctx)
			if err != nil {
				t.Fatal(err)
			}
			c.stop("n1")
			if err := os.RemoveAll(filepath.Join(c.dir, "n1")); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "backup")
			file, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(objectstore.Save(ctx, bucket, ref, file, objectstore.SaveOptions{}), file.Close()); err != nil {
				t.Fatal(err)
			}
			backup, err := objectstore.OpenFile(vfs.Default, path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = backup.Close() }()
			restored := newDurableTalker(&journal{}, size)
			if _, err := node.RestoreFrom(ctx, node.Survivor{Cluster: "test", ID: "n1", Dir: c.config("n1").Dir}, restored, backup, ref, 1<<20); err != nil {
				t.Fatal(err)
			}
			c.members = nil
			c.startAs(func(raft.NodeID, *journal) node.StateMachine { return restored }, "n1")
			a.again(t, c.leader())
		})
	}
}

// TestANodeWhoseRecordsAreGoneSaysSo: the local snapshot of a state machine in memory is of no use without them.
func TestANodeWhoseRecordsAreGoneSaysSo(t *testing.T) {
	c := newStoringCluster(t, "n1")
	c.tune = nil
	machine := func(_ raft.NodeID, j *journal) node.StateMachine { return &talker{j, 64 << 10} }
	c.startAs(machine, "n1")
	ask(t, c.leader(), 20)
	ctx := within(t, 30*time.Second)
	ref, err := c.nodes["n1"].Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c.stop("n1")
	local := objectstore.NewDirectory(vfs.Default, filepath.Join(c.config("n1").Dir, "snapshots"))
	m, err := objectstore.Open(ctx, local, ref)
	if err != nil || len(m.Records) == 0 {
		t.Fatalf("%v", err)
	}
	if err := local.Delete(ctx, m.Records[0].Name()); err != nil {
		t.Fatal(err)
	}
	_, err = node.Start(ctx, c.config("n1"), machine("n1", &journal{}))
	var damaged *objectstore.DamagedError
	if !errors.As(err, &damaged) || damaged.Part != m.Records[0].Name() || !strings.Contains(err.Error(), "local snapshot") {
		t.Fatalf("started: %v", err)
	}
}

var (
	_ node.DurableStateMachine = (*durableTalker)(nil)
	_ node.StagedStateMachine  = (*durableTalker)(nil)
)
