package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node"
	"quorate/node/kv"
	"quorate/transport/embednats"
)

// operated is a cluster of serve processes over one NATS server with JetStream.
type operated struct {
	t     *testing.T
	dir   string
	url   string
	nodes map[string]*process
}

func startOperated(t *testing.T) *operated {
	t.Helper()
	return startOperatedOn(t, embednats.Options{Host: "127.0.0.1", Port: -1, JetStream: true, Dir: t.TempDir()})
}

func startOperatedOn(t *testing.T, options embednats.Options) *operated {
	t.Helper()
	server, err := embednats.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	c := &operated{t: t, dir: t.TempDir(), url: server.ClientURL(), nodes: map[string]*process{}}
	for _, id := range []string{"n1", "n2", "n3"} {
		c.serve(id, "--members", "n1,n2,n3")
	}
	c.must("leader", "--wait", "--timeout", "50s")
	return c
}

func (c *operated) serve(id string, args ...string) {
	c.t.Helper()
	c.nodes[id] = start(c.t, append([]string{"serve", "--cluster", "c", "--id", id, "--dir", filepath.Join(c.dir, id), "--nats", c.url}, args...)...)
}

// with adds where the cluster is.
func (c *operated) with(args []string) []string {
	return append(slices.Clone(args), "--cluster", "c", "--nats", c.url)
}

func (c *operated) must(args ...string) string {
	c.t.Helper()
	return must(c.t, "", c.with(args)...)
}

func (c *operated) roles() map[string]string {
	c.t.Helper()
	roles := map[string]string{}
	for _, m := range readJSON[shownMembers](c.t, c.must("member", "ls", "--output", "json", "--timeout", "20s")).Members {
		roles[string(m.ID)] = m.Role
	}
	return roles
}

func TestMembersAreChangedFromTheCommandLine(t *testing.T) {
	c := startOperated(t)
	c.must("put", "k", "v", "--timeout", "50s")
	wantStatus(t, statusUsage, "exclude", "serve", "--cluster", "c", "--id", "n9", "--dir", t.TempDir(), "--members", "n9", "--join")
	wantStatus(t, statusFalse, "--join", c.with([]string{"member", "add", "n9", "--timeout", "20s"})...)
	wantStatus(t, statusUsage, "no member", c.with([]string{"member", "promote", "n9"})...)
	c.serve("n4", "--join")
	c.nodes["n4"].waitFor("waiting to be added")
	c.must("member", "add", "n4", "--learner")
	if roles := c.roles(); roles["n4"] != "learner" || len(roles) != 4 {
		t.Fatal(roles)
	}
	c.must("member", "promote", "n4")
	if out := c.must("member", "remove", "n4", "--retain"); !strings.Contains(out, "learners n4") {
		t.Error(out)
	}
	// n2's disk is lost: it says what to do, and that works.
	c.nodes["n2"].stop()
	if err := os.RemoveAll(filepath.Join(c.dir, "n2")); err != nil {
		t.Fatal(err)
	}
	c.serve("n2", "--members", "n1,n2,n3")
	if status := c.nodes["n2"].ended(); status != statusFailed || !strings.Contains(c.nodes["n2"].stderr(), "quorate member replace n2") {
		t.Fatalf("exit status %d:\n%s", status, c.nodes["n2"].stderr())
	}
	c.must("leader", "--wait", "--timeout", "50s")
	c.must("member", "replace", "n2", "n4")
	if roles := c.roles(); len(roles) != 3 || roles["n2"] != "" || roles["n4"] == "learner" {
		t.Fatal(roles)
	}
	// The leader itself goes.
	leader := strings.TrimSpace(c.must("leader", "--wait", "--timeout", "50s"))
	c.must("member", "remove", leader)
	next := strings.TrimSpace(c.must("leader", "--wait", "--timeout", "50s"))
	if roles := c.roles(); next == leader || len(roles) != 2 {
		t.Fatalf("%s was removed, %s leads: %v", leader, next, roles)
	}
	wantStatus(t, statusFalse, "not a member", c.with([]string{"leader", "transfer", leader})...)
	if out := strings.TrimSpace(c.must("leader", "transfer")); out == next || out == "" {
		t.Errorf("transfer from %s to %s", next, out)
	}
	if out := c.must("get", "k", "--timeout", "50s"); out != "v" {
		t.Error(out)
	}
	for _, id := range []string{"n1", "n3", "n4"} {
		if id != leader {
			status, out, errs := quorate(t, nil, c.with([]string{"get", "k", "--consistency", "local", "--node", id, "--timeout", "20s"})...)
			if status != statusDone || out != "v" || !strings.Contains(errs, id+" answered") {
				t.Errorf("%d %q %q", status, out, errs)
			}
		}
	}
	for _, history := range []string{"all", "1000"} {
		c.must("history", history)
		if out := c.must("history"); out != history+"\n" {
			t.Errorf("history %s: %q", history, out)
		}
	}
	wantStatus(t, statusUsage, "from 1 on", c.with([]string{"history", "0"})...)
	wantStatus(t, statusUsage, "--consistency", c.with([]string{"get", "k", "--consistency", "lucky"})...)
}

func TestSnapshotsAreTakenSavedAndRestored(t *testing.T) {
	c := startOperated(t)
	for i := range 5 {
		c.must("put", fmt.Sprint("k", i), fmt.Sprint("v", i), "--timeout", "50s")
	}
	taken := readJSON[shownSnapshot](t, c.must("snapshot", "take", "--output", "json"))
	if again := readJSON[shownSnapshot](t, c.must("snapshot", "take", "--output", "json")); again.Name != taken.Name {
		t.Errorf("%+v, then %+v", taken, again)
	}
	list := readJSON[shownSnapshots](t, c.must("snapshot", "ls", "--output", "json")).Snapshots
	if len(list) != 1 || list[0].Name != taken.Name || list[0].Bytes != taken.Bytes || len(list[0].Nodes) != 0 || time.Since(*list[0].Time) > time.Hour {
		t.Errorf("%+v", list)
	}
	file := filepath.Join(t.TempDir(), "backup")
	c.must("snapshot", "save", file)
	must(t, "", "snapshot", "verify", file)
	wantStatus(t, statusUsage, "--overwrite", c.with([]string{"snapshot", "save", file})...)
	c.must("snapshot", "save", file, "--overwrite", "--take=false")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(whole)
	damaged[len(damaged)/2] ^= 1
	padding := bytes.Clone(whole)
	padding[len(padding)-1] ^= 1
	for name, content := range map[string][]byte{"flipped": damaged, "flipped where nothing is": padding, "longer": append(bytes.Clone(whole), 0), "cut": whole[:len(whole)/2], "foreign": []byte("hello")} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		wantStatus(t, statusFalse, "", "snapshot", "verify", path)
	}
	for _, p := range c.nodes {
		p.stop()
	}
	// A survivor is looked at, and becomes a cluster of its own.
	wantStatus(t, statusFalse, "nothing was changed", "recover", "--cluster", "c", "--id", "n1", "--dir", filepath.Join(c.dir, "n1"))
	must(t, "", "recover", "--cluster", "c", "--id", "n1", "--dir", filepath.Join(c.dir, "n1"), "--yes")
	c.serve("n1")
	if out := c.must("get", "k3", "--timeout", "50s"); out != "v3" {
		t.Error(out)
	}
	c.nodes["n1"].stop()
	// From the file, and from the object store; the recovered cluster has no snapshot of its own yet.
	for id, from := range map[string][]string{"m1": {"--file", file}, "m2": {"--nats", c.url}} {
		dir := filepath.Join(c.dir, id)
		must(t, "", append([]string{"snapshot", "restore", "--cluster", "c", "--id", id, "--dir", dir}, from...)...)
		wantStatus(t, statusFailed, "empty", append([]string{"snapshot", "restore", "--cluster", "c", "--id", id, "--dir", dir}, from...)...)
		c.serve(id)
		if out := c.must("get", "k4", "--timeout", "50s"); out != "v4" {
			t.Error(out)
		}
		c.nodes[id].stop()
	}
}

// The largest entry is that of the cluster which the snapshot is of: what is in the state can be written again, and nodes join over the same
// NATS server.
func TestRestoredClusterTakesEntriesAsLargeAsBefore(t *testing.T) {
	for _, payload := range []int{256 << 10, 2 << 20} {
		t.Run(fmt.Sprint(payload), func(t *testing.T) {
			c := startOperatedOn(t, embednats.Options{Host: "127.0.0.1", Port: -1, JetStream: true, Dir: t.TempDir(), MaxPayload: payload})
			source, backup := t.TempDir(), filepath.Join(t.TempDir(), "backup")
			write(t, filepath.Join(source, "big"), strings.Repeat("x", payload/2))
			c.must("import", source, "--timeout", "20s")
			c.must("snapshot", "save", backup, "--timeout", "50s")
			for _, p := range c.nodes {
				p.stop()
			}
			restore := func(id string, args ...string) (uint64, string) {
				t.Helper()
				status, out, errs := quorate(t, nil, append([]string{"snapshot", "restore", "--cluster", "c", "--id", id, "--dir", filepath.Join(c.dir, id), "--output", "json"}, args...)...)
				if status != statusDone {
					t.Fatalf("restore: exit status %d\n%s%s", status, out, errs)
				}
				return readJSON[shownRecovery](t, out).MaxEntryBytes, errs
			}
			for id, from := range map[string][]string{"file": {"--file", backup}, "bucket": {"--nats", c.url}} {
				if limit, errs := restore(id, from...); limit != uint64(payload-node.EntryEnvelope) || errs != "" {
					t.Errorf("%s: largest entry of %d bytes\n%s", id, limit, errs)
				}
				if limit, errs := restore(id+"-small", append(from, "--max-entry-bytes", "64KiB")...); limit != 64<<10 || !strings.Contains(errs, "too large to be written again") {
					t.Errorf("%s: largest entry of %d bytes\n%s", id, limit, errs)
				}
			}
			if limit, errs := restore("large", "--nats", c.url, "--max-entry-bytes", "32MiB"); limit != 32<<20 || !strings.Contains(errs, "max_payload") {
				t.Errorf("largest entry of %d bytes\n%s", limit, errs)
			}
			c.serve("file")
			c.serve("joins", "--join")
			c.must("leader", "--wait", "--timeout", "50s")
			c.must("import", source, "--timeout", "20s")
			c.nodes["joins"].waitFor("waiting to be added")
			c.must("member", "add", "joins", "--timeout", "50s")
		})
	}
}

func TestLargestEntryOfARestoredCluster(t *testing.T) {
	for _, c := range []struct {
		wanted, had uint64
		room        int64
		want        uint64
		says        string
	}{
		{0, 500, 0, 500, ""},
		{0, 500, 500 + node.EntryEnvelope, 500, ""},
		{0, 500, 500 + node.EntryEnvelope - 1, 500, "max_payload"},
		{600, 500, 0, 600, ""},
		{400, 500, 0, 400, "too large to be written again"},
		{0, 0, 0, defaultMaxEntryBytes, "does not say"},
		{0, 0, 64 << 10, 60 << 10, "does not say"},
		{700, 0, 64 << 10, 700, ""},
	} {
		var errs bytes.Buffer
		if got := (&app{stderr: &errs}).maxEntryBytes(c.wanted, c.had, c.room); got != c.want || (c.says == "") != (errs.Len() == 0) || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%+v: %d\n%s", c, got, errs.String())
		}
	}
}

// Without JetStream a snapshot stays with the node that built it. It is listed there, and saved from there, and what an earlier save has read is
// not read again.
func TestSnapshotsWithoutJetStreamAreListedSavedAndRestored(t *testing.T) {
	c := startOperatedOn(t, embednats.Options{Host: "127.0.0.1", Port: -1})
	file := filepath.Join(t.TempDir(), "backup")
	c.must("put", "k", "v", "--timeout", "50s")
	wantStatus(t, statusFalse, "there is no snapshot", c.with([]string{"snapshot", "save", file, "--take=false"})...)
	taken := readJSON[shownSnapshot](t, c.must("snapshot", "take", "--output", "json"))
	leader := strings.TrimSpace(c.must("leader"))
	list := readJSON[shownSnapshots](t, c.must("snapshot", "ls", "--output", "json"))
	if len(list.Snapshots) != 1 || len(list.Unseen) != 0 {
		t.Fatalf("%+v", list)
	}
	if held := list.Snapshots[0]; held.Name != taken.Name || fmt.Sprint(held.Nodes) != "["+leader+"]" || time.Since(*held.Time) > time.Hour {
		t.Errorf("%s leads, held is %+v", leader, held)
	}
	status, out, errs := quorate(t, nil, c.with([]string{"snapshot", "save", file, "--progress"})...)
	if status != statusDone || !strings.Contains(out, "snapshot of index") || !strings.Contains(errs, "saving") {
		t.Errorf("%d %q %q", status, out, errs)
	}
	must(t, "", "snapshot", "verify", file)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	again := file + "-again"
	if err := os.WriteFile(again+".partial", whole[:len(whole)-1024], 0o600); err != nil {
		t.Fatal(err)
	}
	saved := readJSON[shownSave](t, c.must("snapshot", "save", again, "--take=false", "--output", "json"))
	if saved.Name != taken.Name || saved.Resumed == 0 || saved.FileBytes != int64(len(whole)) {
		t.Errorf("%+v", saved)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(file), "*")); err != nil || len(left) != 2 {
		t.Errorf("%v are left (%v)", left, err)
	}
	// When the node that built it is away, the others say so; another one is taken where the new leader is.
	c.nodes[leader].stop()
	c.must("leader", "--wait", "--timeout", "50s")
	status, out, errs = quorate(t, nil, c.with([]string{"snapshot", "ls", "--output", "json"})...)
	if list := readJSON[shownSnapshots](t, out); status != statusDone || fmt.Sprint(list.Unseen) != "["+leader+"]" || !strings.Contains(errs, leader+" cannot be asked") {
		t.Errorf("%d %+v %q", status, list, errs)
	}
	wantStatus(t, statusUnavailable, leader+" cannot be asked", c.with([]string{"snapshot", "save", file, "--overwrite", "--take=false"})...)
	c.must("put", "k", "v2", "--timeout", "50s")
	c.must("snapshot", "save", file, "--overwrite")
	for _, p := range c.nodes {
		p.stop()
	}
	must(t, "", "snapshot", "restore", "--cluster", "c", "--id", "m1", "--dir", filepath.Join(c.dir, "m1"), "--file", file)
	c.serve("m1")
	if out := c.must("get", "k", "--timeout", "50s"); out != "v2" {
		t.Error(out)
	}
}

// Three nodes are restarted one after the other, as for an upgrade, while clients write: nothing that was acknowledged is lost, and nobody
// waits long.
func TestRollingRestartLosesNothing(t *testing.T) {
	c := startOperated(t)
	conn, err := nats.Connect(c.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	writing, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	const writers = 4
	newest := make([]atomic.Int64, writers)
	longest := make([]time.Duration, writers)
	for i := range writers {
		client, err := kv.NewClient(conn, "c")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		group.Go(func() {
			for n := int64(1); writing.Err() == nil; n++ {
				sent := time.Now()
				if _, err := client.Put(ctx, fmt.Sprint("w", i), fmt.Append(nil, n)); err != nil {
					t.Errorf("writer %d, write %d: %v", i, n, err)
					return
				}
				newest[i].Store(n)
				if n > 1 {
					longest[i] = max(longest[i], time.Since(sent))
				}
			}
		})
	}
	write := func(more int64) {
		t.Helper()
		for i := range newest {
			from := newest[i].Load()
			eventually(t, fmt.Sprintf("%d writes more of writer %d", more, i), func() bool { return newest[i].Load() >= from+more })
		}
	}
	write(20)
	for _, id := range []string{"n1", "n2", "n3"} {
		c.nodes[id].signal(syscall.SIGTERM)
		if status := c.nodes[id].ended(); status != statusDone {
			t.Fatalf("%s: exit status %d", id, status)
		}
		c.serve(id)
		eventually(t, id+" to follow", func() bool {
			status, out, _ := quorate(t, nil, c.with([]string{"status", "--node", id, "--output", "json"})...)
			return status == statusDone && strings.Contains(out, `"leader":"n`) && strings.Contains(out, `"connected":true`)
		})
		write(20)
	}
	stop()
	group.Wait()
	client, err := kv.NewClient(conn, "c")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	for i := range newest {
		n := newest[i].Load()
		if entry, err := client.Get(ctx, fmt.Sprint("w", i)); err != nil || string(entry.Value) != fmt.Sprint(n) {
			t.Errorf("writer %d wrote %d, the store has %q (%v)", i, n, entry.Value, err)
		}
	}
	slices.Sort(longest)
	t.Logf("the longest waits of %d writers: %v", writers, longest)
}
