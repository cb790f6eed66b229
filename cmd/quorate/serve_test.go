package main

import (
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestServeWithEmbeddedServersMakesACluster(t *testing.T) {
	ids := []string{"n1", "n2", "n3"}
	dir := t.TempDir()
	var clientPorts, routePorts []string
	for range ids {
		clientPorts = append(clientPorts, closedPort(t))
		routePorts = append(routePorts, closedPort(t))
	}
	var processes []*process
	for i, id := range ids {
		args := []string{
			"serve", "--cluster", "embedded", "--id", id, "--members", strings.Join(ids, ","), "--dir", filepath.Join(dir, id),
			"--embed", "--listen", "127.0.0.1:" + clientPorts[i], "--route-listen", "127.0.0.1:" + routePorts[i],
		}
		for j := range ids {
			if j != i {
				args = append(args, "--route", "nats://127.0.0.1:"+routePorts[j])
			}
		}
		processes = append(processes, start(t, args...))
	}
	t.Setenv("QUORATE_CLUSTER", "embedded")
	must(t, "", "leader", "--wait", "--timeout", "50s", "--nats", "nats://127.0.0.1:"+clientPorts[0])
	must(t, "", "put", "k", "v", "--nats", "nats://127.0.0.1:"+clientPorts[0])
	for _, port := range clientPorts {
		if out := must(t, "", "get", "k", "--nats", "nats://127.0.0.1:"+port); out != "v" {
			t.Errorf("through port %s: %q", port, out)
		}
	}
	for _, p := range processes {
		p.stop()
	}
}

func TestServeWaitsForNATSAndSaysSo(t *testing.T) {
	port := closedPort(t)
	p := start(t, "serve", "--cluster", "c", "--id", "n1", "--members", "n1", "--dir", t.TempDir(), "--nats", "nats://127.0.0.1:"+port, "--log-format", "json")
	p.waitFor("cannot reach NATS")
	if !strings.Contains(p.stderr(), port) || !strings.HasPrefix(p.stderr(), "{") {
		t.Errorf("log:\n%s", p.stderr())
	}
	p.stop()
}

func TestServeSaysForWhomItWaits(t *testing.T) {
	url := startNATS(t)
	p := start(t, "serve", "--cluster", "c", "--id", "n1", "--members", "n1,n2", "--dir", t.TempDir(), "--nats", url)
	p.waitFor("n2")
	eventually(t, "status that says so", func() bool {
		status, stdout, _ := quorate(t, nil, "status", "--cluster", "c", "--nats", url)
		return status == statusDone && strings.Contains(stdout, "n1: waits for an answer of n2")
	})
	p.signal(syscall.SIGINT)
	if status := p.ended(); status != statusDone {
		t.Errorf("exit status %d", status)
	}
}

func TestServeRefusesADirectoryOfAnotherNode(t *testing.T) {
	url := startNATS(t)
	dir := t.TempDir()
	p := start(t, "serve", "--cluster", "c", "--id", "n1", "--members", "n1", "--dir", dir, "--nats", url)
	must(t, "", "leader", "--wait", "--timeout", "50s", "--cluster", "c", "--nats", url)
	p.stop()
	wantStatus(t, statusFailed, "n1", "serve", "--cluster", "c", "--id", "n2", "--members", "n2", "--dir", dir, "--nats", url)
	wantStatus(t, statusFailed, "cluster", "serve", "--cluster", "other", "--id", "n1", "--members", "n1", "--dir", dir, "--nats", url)

	// Its own it takes again, and no members are needed.
	p = start(t, "serve", "--cluster", "c", "--id", "n1", "--dir", dir, "--nats", url)
	must(t, "", "leader", "--wait", "--timeout", "50s", "--cluster", "c", "--nats", url)
	p.stop()
}

func TestLaterStartsIgnoreTheMembersAndSaySo(t *testing.T) {
	url := startNATS(t)
	dir := t.TempDir()
	for _, run := range []struct{ members, says string }{
		{"n1", ""},
		{"n1", "the list of members is ignored"},
		{"n1,n2", "genesis=n1"},
	} {
		p := start(t, "serve", "--cluster", "c", "--id", "n1", "--members", run.members, "--dir", dir, "--nats", url)
		p.waitFor(run.says)
		must(t, "", "leader", "--wait", "--timeout", "50s", "--cluster", "c", "--nats", url) // alone: it has the members of the first start
		p.stop()
		if run.says == "" && strings.Contains(p.stderr(), "ignored") {
			t.Errorf("the first start says:\n%s", p.stderr())
		}
	}
}

func TestServeWithoutMembersNeedsADirectoryWithSome(t *testing.T) {
	wantStatus(t, statusUsage, "members", "serve", "--cluster", "c", "--id", "n1", "--dir", t.TempDir(), "--nats", startNATS(t))
}

func TestWriteWithoutAnAnswerHasAnUnknownOutcome(t *testing.T) {
	url := startNATS(t)
	p := start(t, "serve", "--cluster", "c", "--id", "n1", "--members", "n1", "--dir", t.TempDir(), "--nats", url)
	must(t, "", "leader", "--wait", "--timeout", "50s", "--cluster", "c", "--nats", url)
	must(t, "", "put", "k", "before", "--timeout", "50s", "--cluster", "c", "--nats", url)

	p.pause() // it is subscribed, and does not answer
	wantStatus(t, statusUnavailable, "may or may not take effect", "put", "k", "after", "--timeout", "3s", "--cluster", "c", "--nats", url)
	p.resume()
	if out := must(t, "", "get", "k", "--timeout", "50s", "--cluster", "c", "--nats", url); out != "before" && out != "after" {
		t.Errorf("got %q", out)
	}
	p.stop()
}

func TestServeWithJetStreamKeepsItsFilesInTheNodesDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "n1")
	url := "127.0.0.1:" + closedPort(t)
	args := []string{"serve", "--cluster", "c", "--id", "n1", "--members", "n1", "--dir", dir, "--embed", "--jetstream", "--listen", url}
	p := start(t, args...)
	must(t, "", "leader", "--wait", "--timeout", "50s", "--cluster", "c", "--nats", url)
	if got, want := names(t, dir), []string{logDir, natsDir, stateDir}; !slices.Equal(got, want) {
		t.Errorf("directory has %q, want %q", got, want)
	}
	wantStatus(t, statusFailed, "--listen", append(args[:len(args):len(args)], "--dir", dir+"-other")...)
	p.stop()
}
