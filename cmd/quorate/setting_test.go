package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node/kv"
)

func TestLeasesAreChosenAndReadByFromTheCommandLine(t *testing.T) {
	c := startOperated(t)
	c.must("put", "k", "old", "--timeout", "50s")
	if out := c.must("setting", "--timeout", "20s"); out != "instant failover\n" {
		t.Errorf("a new cluster has %q", out)
	}
	wantStatus(t, statusUsage, "either", c.with([]string{"setting", "set"})...)
	wantStatus(t, statusUsage, "either", c.with([]string{"setting", "set", "--lease", "1s", "--instant-failover"})...)
	wantStatus(t, statusUsage, "instant-failover", c.with([]string{"setting", "set", "--lease", "0s"})...)
	wantStatus(t, statusUsage, "heartbeat", c.with([]string{"setting", "set", "--lease", "1ms", "--timeout", "20s"})...)
	read := func(want string, args ...string) string {
		t.Helper()
		status, out, errs := quorate(t, nil, c.with(append([]string{"get", "k", "--consistency", "lease", "--timeout", "50s"}, args...))...)
		if status != statusDone || out != want {
			t.Fatalf("exit status %d: %q, want %q\n%s", status, out, want, errs)
		}
		return errs
	}
	if errs := read("old"); !strings.Contains(errs, "no lease") {
		t.Errorf("a cluster without leases says %q", errs)
	}
	const lease = "600ms"
	set := readJSON[shownSetting](t, c.must("setting", "set", "--lease", lease, "--output", "json", "--timeout", "20s"))
	if set.Lease != 600*time.Millisecond || set.InstantFailover || set.ID.Index == 0 {
		t.Errorf("%+v", set)
	}
	if shown := readJSON[shownSetting](t, c.must("setting", "--output", "json", "--timeout", "20s")); shown != set {
		t.Errorf("%+v was set, %+v is shown", set, shown)
	}
	if out := c.must("status", "--timeout", "20s"); !strings.Contains(out, "leases of "+lease) {
		t.Error(out)
	}
	eventually(t, "a read under the lease", func() bool { return strings.Contains(read("old"), "under its lease") })
	eventually(t, "a list under the lease", func() bool {
		status, out, errs := quorate(t, nil, c.with([]string{"ls", "--consistency", "lease", "--timeout", "20s"})...)
		return status == statusDone && out == "k\n" && strings.Contains(errs, "under its lease")
	})

	c.pausedLeader()

	for _, p := range c.nodes {
		p.stop()
	}
	for id := range c.nodes {
		c.serve(id)
	}
	if shown := readJSON[shownSetting](t, c.must("setting", "--output", "json", "--timeout", "50s")); shown != set {
		t.Errorf("%+v was set, %+v is shown after a restart", set, shown)
	}
	if out := c.must("setting", "set", "--instant-failover", "--timeout", "50s"); out != "instant failover\n" {
		t.Error(out)
	}
	if errs := read("new"); !strings.Contains(errs, "no lease") {
		t.Errorf("back to instant failover, it says %q", errs)
	}
}

// pausedLeader stops the leader's process while others go on, and asks it for reads under its lease that it finds when it wakes up.
func (c *operated) pausedLeader() {
	t := c.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := nats.Connect(c.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client, err := kv.NewClient(conn, "c")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	old := strings.TrimSpace(c.must("leader", "--wait", "--timeout", "50s"))
	c.nodes[old].pause()
	woken := false
	wake := func() {
		if !woken {
			c.nodes[old].resume()
		}
		woken = true
	}
	defer wake()
	if _, err := client.Put(ctx, "k", []byte("new")); err != nil { // when the lease is over and another leads
		t.Fatal(err)
	}
	const asking = 8
	answers := make(chan error, 2*asking)
	for i := range 2 * asking {
		options := []kv.ReadOption{kv.Lease(nil)}
		if i < asking {
			options = append(options, kv.FromNode(old))
		}
		go func() {
			entry, err := client.Get(ctx, "k", options...)
			if err == nil && string(entry.Value) != "new" {
				err = fmt.Errorf("a stale read: %q", entry.Value)
			}
			answers <- err
		}()
	}
	for range asking { // those of the new leader
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	wake()
	for range asking {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}
