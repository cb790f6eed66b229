package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node"
	"quorate/node/raft"
	"quorate/transport/embednats"
)

// startNATS runs a NATS server for a test and returns its URL.
func startNATS(t *testing.T) string {
	t.Helper()
	server, err := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server.ClientURL()
}

// answerStatus answers status requests as the nodes of cluster c would.
func answerStatus(t *testing.T, url string, nodes ...node.Status) *link {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	for _, s := range nodes {
		content, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, subject := range []string{"quorate.c.status", fmt.Sprintf("quorate.c.node.%s.status", s.ID)} {
			if _, err := conn.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond(content) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	return &link{conn: conn, cluster: "c"}
}

func statusOf(id raft.NodeID, role node.Role, term, commit uint64, members ...raft.NodeID) node.Status {
	s := node.Status{
		Cluster: "c", ID: id, Role: role, Term: term, CommittedIndex: commit, AppliedIndex: commit,
		Serving: role == node.RoleLeader, NATS: node.NATSStatus{Connected: true, URL: "nats://x"},
	}
	for _, m := range members {
		s.Members = append(s.Members, node.MemberStatus{ID: m, Voter: true})
	}
	return s
}

func TestStatusReturnsAsSoonAsAllMembersAnswered(t *testing.T) {
	l := answerStatus(t, startNATS(t),
		statusOf("n1", node.RoleFollower, 3, 9, "n1", "n2", "n3"),
		statusOf("n2", node.RoleLeader, 3, 10, "n1", "n2", "n3"),
		statusOf("n3", node.RoleFollower, 3, 10, "n1", "n2", "n3"))
	// With no deadline but the test's, and no patience to wait out: it ends because it knows that it has all.
	view, err := gatherStatus(t.Context(), l, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(view.answers) != 3 || len(view.silent) != 0 || view.answers[0].ID != "n1" || view.committed() != 10 {
		t.Errorf("view %+v", view)
	}
	if leader, ok := view.leader(); !ok || leader.ID != "n2" {
		t.Errorf("leader %s, %t", leader.ID, ok)
	}
}

func TestStatusShowsWhoIsSilent(t *testing.T) {
	l := answerStatus(t, startNATS(t), statusOf("n2", node.RoleFollower, 3, 9, "n1", "n2", "n3"))
	view, err := gatherStatus(t.Context(), l, "")
	if err != nil || len(view.answers) != 1 || !slices.Equal(view.silent, []raft.NodeID{"n1", "n3"}) {
		t.Fatalf("view %+v, %v", view, err)
	}
	if _, ok := view.leader(); ok {
		t.Error("a leader where nobody leads")
	}
}

func TestStatusBeforeTheGenesisShowsWhoIsWaitedFor(t *testing.T) {
	waiting := node.Status{Cluster: "c", ID: "n1", Role: node.RoleWaiting, WaitingFor: []raft.NodeID{"n2", "n3"}}
	l := answerStatus(t, startNATS(t), waiting)
	view, err := gatherStatus(t.Context(), l, "")
	if err != nil || !slices.Equal(view.silent, []raft.NodeID{"n2", "n3"}) {
		t.Fatalf("view %+v, %v", view, err)
	}
}

func TestStatusOfNobody(t *testing.T) {
	l := answerStatus(t, startNATS(t)) // nobody is subscribed: NATS says so, no timeout is waited out
	for _, only := range []raft.NodeID{"", "n1"} {
		_, err := gatherStatus(t.Context(), l, only)
		if !errors.Is(err, errNobody) || exitStatus(t.Context(), err) != statusUnavailable {
			t.Errorf("node %q: %v", only, err)
		}
	}
	silent := answerStatus(t, startNATS(t))
	if _, err := silent.conn.Subscribe("quorate.c.>", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := gatherStatus(ctx, silent, ""); !errors.Is(err, errNobody) || exitStatus(t.Context(), err) != statusUnavailable {
		t.Errorf("a node that does not answer: %v", err)
	}
}

func TestStatusOfOneNode(t *testing.T) {
	l := answerStatus(t, startNATS(t),
		statusOf("n1", node.RoleFollower, 3, 9, "n1", "n2"), statusOf("n2", node.RoleLeader, 3, 9, "n1", "n2"))
	view, err := gatherStatus(t.Context(), l, "n2")
	if err != nil || len(view.answers) != 1 || view.answers[0].ID != "n2" {
		t.Errorf("view %+v, %v", view, err)
	}
}

func TestAnswerThatIsNoStatusIsAnError(t *testing.T) {
	url := startNATS(t)
	l := answerStatus(t, url)
	for _, answer := range []string{"hello", "{}", `{"id":7}`} {
		sub, err := l.conn.Subscribe("quorate.c.status", func(m *nats.Msg) { _ = m.Respond([]byte(answer)) })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := gatherStatus(t.Context(), l, ""); err == nil || !strings.Contains(err.Error(), "not a node's status") {
			t.Errorf("answer %s: %v", answer, err)
		}
		if err := sub.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOfTwoLeadersTheOneOfTheHigherTermLeads(t *testing.T) {
	view := clusterView{answers: []node.Status{
		statusOf("n1", node.RoleLeader, 4, 1), statusOf("n2", node.RoleLeader, 5, 1), statusOf("n3", node.RoleFollower, 6, 1),
	}}
	if leader, ok := view.leader(); !ok || leader.ID != "n2" {
		t.Errorf("leader %s, %t", leader.ID, ok)
	}
	elected := statusOf("n1", node.RoleLeader, 7, 1)
	elected.Serving = false // elected, but its first entry is not committed
	if _, ok := (clusterView{answers: []node.Status{elected}}).leader(); ok {
		t.Error("a leader that takes no writes yet")
	}
}

func TestStatusIsPrinted(t *testing.T) {
	url := startNATS(t)
	behind := statusOf("n1", node.RoleFollower, 3, 9, "n1", "n2", "n3")
	behind.AppliedIndex, behind.Leader, behind.Warnings = 5, "n2", []string{"disk is nearly full"}
	answerStatus(t, url, behind, statusOf("n2", node.RoleLeader, 3, 10, "n1", "n2", "n3"))

	status, stdout, stderr := runCommand(t, "", "status", "--cluster", "c", "--nats", url)
	if status != statusDone {
		t.Fatalf("exit status %d: %s", status, stderr)
	}
	for _, want := range []string{
		"cluster c, leader n2 in term 3",
		"n1     follower      3      n2       9        5         5     nats://x   1",
		"n3     unreachable   -",
		"n1: disk is nearly full",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}

	status, stdout, _ = runCommand(t, "", "status", "--cluster", "c", "--nats", url, "-o", "json")
	var shown shownCluster
	if err := json.Unmarshal([]byte(stdout), &shown); err != nil || status != statusDone {
		t.Fatalf("exit status %d, %v: %s", status, err, stdout)
	}
	if shown.Leader != "n2" || len(shown.Nodes) != 2 || !slices.Equal(shown.Unreachable, []raft.NodeID{"n3"}) {
		t.Errorf("shown %+v", shown)
	}
}

// The age of the oldest log entry is shown beside the time that the last installation took, with a remark when the log is too short for
// another.
func TestStatusComparesTheLogWithTheLastInstallation(t *testing.T) {
	for age, remarked := range map[time.Duration]bool{time.Hour: false, 15 * time.Second: true} {
		s := statusOf("n1", node.RoleLeader, 3, 9, "n1")
		s.OldestEntryAge, s.Snapshot.InstallTook = age, 10*time.Second
		said := strings.Join(remarks(s), "; ")
		if got := strings.Contains(said, "the log goes back "+age.String()) && strings.Contains(said, "took 10s to install") && strings.Contains(said, "--keep-entries"); got != remarked {
			t.Errorf("a log of %v: %q", age, said)
		}
		b, err := json.Marshal(s)
		if err != nil || !strings.Contains(string(b), fmt.Sprintf(`"oldest_entry_age_ns":%d`, age)) || !strings.Contains(string(b), `"install_took_ns":10000000000`) {
			t.Errorf("%s %v", b, err)
		}
	}
}

// A leader that was paused leads no more when it wakes up, and with leases nobody else does for the time of one.
func TestStatusTellsThatALeaseKeepsAClusterWithoutALeader(t *testing.T) {
	show := func(nodes ...node.Status) string {
		t.Helper()
		url := startNATS(t)
		answerStatus(t, url, nodes...)
		status, stdout, stderr := runCommand(t, "", "status", "--cluster", "c", "--nats", url)
		if status != statusDone {
			t.Fatalf("exit status %d: %s", status, stderr)
		}
		return stdout
	}
	n1, n2 := statusOf("n1", node.RoleFollower, 3, 9, "n1", "n2"), statusOf("n2", node.RoleLeader, 3, 9, "n1", "n2")
	n1.Leader, n2.Leader = "n2", "n2"
	n1.Setting.Lease, n2.Setting.Lease = time.Hour, time.Hour
	if out := show(n1, n2); !strings.Contains(out, "leader n2 in term 3, leases of 1h0m0s\n") || !strings.Contains(out, "\nn2: with leases of 1h0m0s nobody leads for that time") {
		t.Errorf("while n2 leads:\n%s", out)
	}
	woken := statusOf("n2", node.RoleFollower, 3, 9, "n1", "n2")
	woken.Setting.Lease = time.Hour
	if out := show(n1, woken); !strings.Contains(out, "no leader, leases of 1h0m0s: until that time after the leader was last heard of nobody else can lead\n") {
		t.Errorf("n2 was paused:\n%s", out)
	}
	if out := show(n1); !strings.Contains(out, "leader n2 in term 3, says n1, leases of 1h0m0s: until") {
		t.Errorf("n2 is silent:\n%s", out)
	}
	n1.Setting.Lease, n2.Setting.Lease = 500*time.Millisecond, 500*time.Millisecond
	if out := show(n1, n2); !strings.Contains(out, "leases of 500ms\n") || strings.Contains(out, "nobody") {
		t.Errorf("a good lease is warned of:\n%s", out)
	}
	n1.Setting.Lease = 0
	if out := show(n1); !strings.Contains(out, "leader n2 in term 3, says n1\n") {
		t.Errorf("instant failover, n2 is silent:\n%s", out)
	}
}

func TestLeaderIsPrinted(t *testing.T) {
	url := startNATS(t)
	if status, stdout, stderr := runCommand(t, "", "leader", "--cluster", "c", "--nats", url); status != statusUnavailable || stdout != "" {
		t.Errorf("no node: exit status %d, %q, %s", status, stdout, stderr)
	}
	l := answerStatus(t, url, statusOf("n1", node.RoleFollower, 3, 9, "n1", "n2"))
	if status, stdout, stderr := runCommand(t, "", "leader", "--cluster", "c", "--nats", url); status != statusUnavailable || stdout != "" || !strings.Contains(stderr, "no leader") {
		t.Errorf("no leader: exit status %d, %q, %s", status, stdout, stderr)
	}
	if status, _, stderr := runCommand(t, "", "leader", "--cluster", "c", "--nats", url, "--wait", "--timeout", "300ms"); status != statusUnavailable {
		t.Errorf("no leader within the timeout: exit status %d, %s", status, stderr)
	}

	// One appears while it is waited for: it answers only when it is asked again.
	leads, err := json.Marshal(statusOf("n2", node.RoleLeader, 4, 9, "n1", "n2"))
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	if _, err := l.conn.Subscribe("quorate.c.status", func(m *nats.Msg) {
		if asked.Add(1) > 1 {
			_ = m.Respond(leads)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := l.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr := runCommand(t, "", "leader", "--cluster", "c", "--nats", url, "--wait", "--timeout", "30s")
	if status != statusDone || stdout != "n2\n" {
		t.Errorf("exit status %d, %q, %s", status, stdout, stderr)
	}
	if status, stdout, _ := runCommand(t, "", "leader", "--cluster", "c", "--nats", url, "-o", "json"); status != statusDone || stdout != `{"cluster":"c","leader":"n2","term":4}`+"\n" {
		t.Errorf("exit status %d, %s", status, stdout)
	}
}
