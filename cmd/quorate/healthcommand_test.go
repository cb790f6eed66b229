package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthTellsByTheExitStatus(t *testing.T) {
	url, metrics := startNATS(t), "127.0.0.1:"+closedPort(t)
	overNATS := []string{"health", "--cluster", "c", "--nats", url}
	overHTTP := []string{"health", "--metrics", metrics}
	wantStatus(t, statusUnavailable, "no node answers", overNATS...)
	wantStatus(t, statusUnavailable, "--metrics-listen", overHTTP...)

	n1 := start(t, "serve", "--cluster", "c", "--id", "n1", "--members", "n1,n2", "--dir", t.TempDir(), "--nats", url, "--metrics-listen", metrics)
	n1.waitFor("n2")
	wantStatus(t, statusFalse, "node n1: it knows no leader", overHTTP...)
	eventually(t, "answer over NATS", func() bool {
		status, _, stderr := quorate(t, nil, overNATS...)
		return status == statusFalse && strings.Contains(stderr, "node n1: it knows no leader") && strings.Contains(stderr, "node n2: it does not answer")
	})
	must(t, "", append(overHTTP, "--alive")...) // it waits for another: no reason to restart it

	n2 := start(t, "serve", "--cluster", "c", "--id", "n2", "--members", "n1,n2", "--dir", t.TempDir(), "--nats", url)
	eventually(t, "health", func() bool {
		status, stdout, _ := quorate(t, nil, overNATS...)
		return status == statusDone && stdout == "ok\n"
	})
	must(t, "", overHTTP...)
	must(t, "", append(overNATS, "--node", "n2")...)
	if shown := readJSON[shownHealth](t, must(t, "", append(overNATS, "--output", "json")...)); !shown.Healthy || len(shown.Reasons) > 0 {
		t.Errorf("health is shown as %+v", shown)
	}

	n2.stop()
	eventually(t, "reason", func() bool {
		status, stdout, _ := quorate(t, nil, append(overNATS, "--output", "json")...)
		return status == statusFalse && strings.Contains(strings.Join(readJSON[shownHealth](t, stdout).Reasons, "\n"), "node n2: it does not answer")
	})
	wantStatus(t, statusUnavailable, "node n2", append(overNATS, "--node", "n2")...)
	n1.stop()
}

func TestHealthOfSomethingElse(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	wantStatus(t, statusUnavailable, "404 Not Found", "health", "--metrics", other.Listener.Addr().String())
	wantStatus(t, statusUsage, "host:port", "health", "--metrics", "9464")
	wantStatus(t, statusUsage, "exclude each other", "health", "--metrics", "127.0.0.1:9464", "--node", "n1")
	wantStatus(t, statusUsage, "node id", "health", "--node", "a.b")
	wantStatus(t, statusUsage, "--timeout", "health", "--timeout", "0s")
}
