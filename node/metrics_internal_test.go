package node

import (
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"quorate/node/raft"
	"quorate/telemetry"
)

// A node that stands again because nobody won asks first whether it could win, and stays a candidate all the while.
func TestEachCandidacyIsAnElectionAndNoPreVoteIs(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	m, err := newMetrics(telemetry.New(telemetry.Options{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}))
	if err != nil {
		t.Fatal(err)
	}
	self, voter := raft.Peer{ID: "n1"}, raft.Peer{ID: "n2"}
	now := time.Now()
	engine := raft.New(raft.Config{Self: self, HeartbeatInterval: time.Second, ElectionTimeout: 10 * time.Second, Rand: rand.New(rand.NewPCG(1, 1))}, raft.Restored{
		Vote: raft.Vote{Term: 4, For: self.ID},
		Memberships: []raft.MembershipAt{{Membership: &raft.Membership{Members: []raft.Member{
			{Peer: self, Voter: true}, {Peer: voter, Voter: true}, {Peer: raft.Peer{ID: "n3"}, Voter: true},
		}}}},
	}, now)
	c := &raftCore{self: self, engine: engine, watch: &watch{}, metrics: m, logger: slog.New(slog.DiscardHandler)}
	c.watch.init(&coreState{role: RoleFollower, term: 4, stood: 4})
	pass := func(what string, want int64) {
		t.Helper()
		out := engine.Output()
		c.observe(out.Changed)
		if out.Write != nil {
			engine.Durable(now, out.Write.Seq)
		}
		var all metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &all); err != nil {
			t.Fatal(err)
		}
		var got int64
		for _, scope := range all.ScopeMetrics {
			for _, m := range scope.Metrics {
				if m.Name == "quorate.elections" {
					got = m.Data.(metricdata.Sum[int64]).DataPoints[0].Value
				}
			}
		}
		if s := c.watch.state.Load(); got != want {
			t.Fatalf("%s, %s in term %d: %d elections, want %d", what, s.role, s.term, got, want)
		}
	}
	for i := range int64(3) {
		now = engine.Deadline()
		engine.Tick(now)
		pass("it asks whether it could win", i)
		term := engine.Vote().Term + 1
		engine.VoteAnswer(now, &raft.VoteResponse{From: voter, Term: term, Pre: true, Granted: true})
		pass("it stands", i+1)
		if got := engine.Vote(); got != (raft.Vote{Term: term, For: self.ID}) {
			t.Fatalf("the vote is %v: the test tests nothing", got)
		}
	}
	// Somebody else raises the term, and wins it: that is no election of this node's.
	engine.Append(now, &raft.AppendRequest{Term: 9, Leader: voter}, raft.ReplyTo(0))
	pass("it follows", 3)
}
