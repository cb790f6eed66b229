package compose

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"quorate/node"
)

// TestInContainers runs the README's commands, then takes from the cluster a leader, a NATS server, and all containers.
func TestInContainers(t *testing.T) {
	if os.Getenv("QUORATE_COMPOSE") == "" {
		t.Skip("runs containers, which needs Docker: QUORATE_COMPOSE=1 go test ./test/compose -run InContainers -v -timeout 20m")
	}
	r := newRunning(t, "cluster.yml")
	if out := r.readme("-f compose/cluster.yml up"); !strings.Contains(out, "hello") {
		t.Errorf("the README's commands print\n%s", out)
	}
	r.mustCompose("up --detach") // the README's last line ended it
	r.waitHealthy()
	if got := r.mustQuorate("n1", "get greeting"); got != "hello" {
		t.Errorf("after down and up: greeting is %q", got)
	}

	leader := r.leader("n1")
	others := without(nodes, leader)
	t.Logf("killing the leader, %s", leader)
	r.must("docker kill " + r.container(leader))
	r.mustQuorate(others[0], "put greeting again --timeout 60s")
	if next := r.leader(others[1]); next == leader {
		t.Errorf("%s was killed, and leads", leader)
	}
	if out, err := r.quorate(others[1], "health"); err == nil || !strings.Contains(err.Error(), leader+": it does not answer") {
		t.Errorf("health without %s: %v %s", leader, err, out)
	}
	for range 20 {
		r.mustQuorate(others[1], "put while-gone value --timeout 60s")
	}
	r.must("docker start " + r.container(leader))
	r.waitHealthy()
	r.waitApplied(leader, r.status(others[0]).CommittedIndex)
	if got := r.mustQuorate(leader, "get greeting --node "+leader); got != "again" {
		t.Errorf("%s has caught up: greeting is %q", leader, got)
	}

	server := servers[0]
	t.Logf("killing the NATS server %s", server)
	r.must("docker kill " + r.container(server))
	r.mustQuorate("n1", "put greeting elsewhere --timeout 60s")
	r.eventually("all nodes are on the other servers, and ready", func() bool {
		_, err := r.quorate("n1", "health")
		return err == nil
	})
	r.must("docker start " + r.container(server))
}

func without(names []string, name string) (others []string) {
	for _, n := range names {
		if n != name {
			others = append(others, n)
		}
	}
	return others
}

// leader asks through a node's container who leads.
func (r *running) leader(via string) string {
	r.t.Helper()
	return strings.TrimSpace(r.mustQuorate(via, "leader --wait --timeout 60s"))
}

func (r *running) status(id string) node.Status {
	r.t.Helper()
	var shown struct{ Nodes []node.Status }
	out := r.mustQuorate(id, "status --output json --timeout 60s --node "+id)
	if err := json.Unmarshal([]byte(out), &shown); err != nil || len(shown.Nodes) != 1 {
		r.t.Fatalf("status of %s: %v\n%s", id, err, out)
	}
	return shown.Nodes[0]
}

func (r *running) waitApplied(id string, index uint64) {
	r.t.Helper()
	r.eventually(id+" has caught up", func() bool { return r.status(id).AppliedIndex >= index })
}
