package chaos

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quorate/node/kv"
	"quorate/test/procs"
)

var (
	seedFlag   = flag.Uint64("seed", 1, "decides on faults and calls")
	faultsFlag = flag.Int("faults", len(faults), "how many faults")
	raceFlag   = flag.Bool("nodes-race", false, "build the nodes with the race detector")
)

// callsAFault is how many calls there are for each fault, on a machine however busy: with fewer, little would be judged.
const callsAFault = 20

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("the nodes are processes of their own, which -short (as with -race) says nothing about")
	}
	source := rand.New(rand.NewPCG(*seedFlag, 0))
	c := newCluster(t, build(t))
	probe, err := kv.NewClient(c.connect(c.url()), clusterName)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = probe.Close() })
	c.awaitWrites(probe)

	h := newHistory()
	tr := startTraffic(c, h, *seedFlag)
	p := &plan{source: source}
	for at := 0; at < *faultsFlag; {
		at += c.torment(p, tr)
		c.awaitWrites(probe)
		c.checkRunning()
		tr.setNodes(c)
	}
	tr.stop()
	c.checkAgreement()
	c.stop()
	calls, unknown := h.counts()
	t.Logf("seed %d: %d calls, %d of them without an answer", *seedFlag, calls, unknown)
	if calls < callsAFault**faultsFlag {
		t.Errorf("only %d calls in %d faults", calls, *faultsFlag)
	}
	if err := h.check(); err != nil {
		t.Error(err)
	}
}

func build(t *testing.T) string {
	t.Helper()
	if !*raceFlag {
		return procs.Build(t)
	}
	path := filepath.Join(t.TempDir(), "quorate")
	if out, err := exec.Command("go", "build", "-race", "-o", path, "quorate/cmd/quorate").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// torment begins a fault, often two, lets clients feel it for a while, and ends it. It returns how many there were.
func (c *cluster) torment(p *plan, tr *traffic) int {
	c.t.Helper()
	chosen := p.next()
	victims := p.victims(c)
	span := time.Duration(50+p.source.IntN(1500)) * time.Millisecond
	var heals []func()
	for i, f := range chosen {
		c.t.Logf("%6v %s: %s", time.Duration(tr.history.now()).Round(time.Millisecond), victims[i].id, f.name)
		heals = append(heals, f.begin(c, victims[i]))
	}
	if p.source.IntN(2) == 0 {
		heals = append(heals, p.tormentClient(tr))
	}
	<-time.After(span) // a fault lasts for a while: this is no wait for something
	for _, heal := range heals {
		heal()
	}
	return len(chosen)
}

// awaitWrites waits until the cluster takes writes, as it must when nothing is wrong.
func (c *cluster) awaitWrites(client *kv.Client) {
	c.t.Helper()
	var err error
	c.await("a write after all faults have ended", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err = client.Put(ctx, "probe", []byte("well"))
		return err == nil
	}, func() any { return err })
}

// checkAgreement waits until all nodes have applied all, and compares what each has, by itself.
func (c *cluster) checkAgreement() {
	c.t.Helper()
	leader := (*member)(nil)
	c.await("a leader", func() bool { leader = c.leader(); return leader != nil }, func() any { return "none" })
	newest, err := c.status(leader)
	if err != nil {
		c.t.Fatal(err)
	}
	reader, err := kv.NewClient(c.connect(c.url()), clusterName)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	lists := map[string][]string{}
	for _, m := range c.nodes {
		behind := ""
		c.await(m.id+" to apply what is committed", func() bool {
			status, err := c.status(m)
			behind = fmt.Sprintf("%d of %d (%v)", status.AppliedIndex, newest.CommittedIndex, err)
			return err == nil && status.AppliedIndex >= newest.CommittedIndex
		}, func() any { return behind })
		ctx, cancel := context.WithTimeout(context.Background(), recovery)
		for entry, err := range reader.List(ctx, "", false, kv.FromNode(m.id), kv.Local(nil)) {
			if err != nil {
				c.t.Fatalf("list of %s: %v", m.id, err)
			}
			lists[m.id] = append(lists[m.id], fmt.Sprintf("%s = %s at %d", entry.Key, entry.Value, entry.Revision))
		}
		cancel()
	}
	for _, m := range c.nodes[1:] {
		if !slices.Equal(lists[m.id], lists[c.nodes[0].id]) {
			c.t.Errorf("%s has %v, %s has %v", c.nodes[0].id, lists[c.nodes[0].id], m.id, lists[m.id])
		}
	}
}
