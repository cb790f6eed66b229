package kv_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node/raft"
	"quorate/transport/embednats"
)

// TestTwoClustersOfOneNameThatMeetDoNotBothServe: each was alone when its leader began, and then their NATS servers find each other. Who asks would
// get now the one's answer, now the other's.
func TestTwoClustersOfOneNameThatMeetDoNotBothServe(t *testing.T) {
	t.Parallel()
	serverOf := func(name string, routes ...string) embednats.Options {
		return embednats.Options{Port: -1, ServerName: name, ClusterName: "nats", ClusterListen: "127.0.0.1:-1", Routes: routes}
	}
	ctx := within(t, 60*time.Second)
	var clusters []*cluster
	var routes []string
	for _, id := range []raft.NodeID{"n1", "m1"} {
		c := startClusterAt(t, serverOf("of-"+string(id)), id)
		if _, err := c.client().Put(ctx, "k", []byte(id)); err != nil {
			t.Fatal(err)
		}
		clusters, routes = append(clusters, c), append(routes, c.server.ClusterAddress())
	}
	between, err := embednats.Start(serverOf("between", routes...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = between.Close() })
	conn, err := between.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	// Those who lead, by the ids of their clusters.
	leaders := func() map[string]bool {
		inbox := conn.NewInbox()
		answers, err := conn.SubscribeSync(inbox)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answers.Unsubscribe() }()
		if err := conn.PublishRequest("quorate.test.kv.leader", inbox, nil); err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for {
			m, err := answers.NextMsg(200 * time.Millisecond)
			if err != nil || m.Header.Get("Status") == "503" {
				return found
			}
			found[m.Header.Get("Quorate-Cluster-Id")] = true
		}
	}
	until := func(what string, enough func(ids map[string]bool) bool) map[string]bool {
		t.Helper()
		for {
			found := leaders()
			if enough(found) {
				return found
			}
			if ctx.Err() != nil {
				t.Fatalf("%s: %d clusters serve", what, len(found))
			}
		}
	}
	until("the clusters meet", func(ids map[string]bool) bool { return len(ids) == 2 })
	serves := until("one gives way", func(ids map[string]bool) bool { return len(ids) == 1 })
	for _, c := range clusters {
		if id := c.members[0]; serves[c.nodes[id].ClusterID().String()] {
			c.nodes[id].stop()
		}
	}
	until("the other serves again", func(ids map[string]bool) bool {
		for id := range ids {
			return !serves[id]
		}
		return false
	})
}

// TestWhoHasJustBegunGivesWayToANamesake, whatever their ids: the other one was there before, and did not answer the first time.
func TestWhoHasJustBegunGivesWayToANamesake(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	conn := c.connect()
	var asked atomic.Int64
	other, err := conn.Subscribe("quorate.test.kv.leader", func(m *nats.Msg) {
		if asked.Add(1) > 1 {
			_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"Quorate-Cluster-Id": {strings.Repeat("f", 32)}}})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, 30*time.Second)
	serves := func(want bool) {
		t.Helper()
		for {
			_, err := conn.Request("quorate.test.kv.get.k", nil, time.Second) // one that comes as it ceases to serve has no answer
			if ctx.Err() != nil {
				t.Fatalf("does not come to serve %v", want)
			}
			if errors.Is(err, nats.ErrNoResponders) != want {
				return
			}
		}
	}
	c.members = []raft.NodeID{"n1"}
	c.start("n1")
	for asked.Load() < 2 { // before it served, and since
		if _, err := conn.RequestWithContext(ctx, "quorate.test.node.n1.status", nil); ctx.Err() != nil {
			t.Fatal("it does not look again: ", err)
		}
	}
	serves(false)
	if err := other.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	serves(true)
}
