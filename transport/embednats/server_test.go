package embednats_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/transport/embednats"
)

func TestTakenPortIsSaid(t *testing.T) {
	first, err := embednats.Start(embednats.Options{Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	_, err = embednats.Start(embednats.Options{Port: first.Port()})
	var taken *embednats.PortError
	if !errors.As(err, &taken) || taken.Address != fmt.Sprintf("127.0.0.1:%d", first.Port()) {
		t.Fatalf("got %v", err)
	}
}

func TestBadAddressesAreSaid(t *testing.T) {
	for name, o := range map[string]embednats.Options{
		"route":  {Port: -1, ClusterName: "c", ClusterListen: "127.0.0.1:0", Routes: []string{"nats://nowhere"}},
		"listen": {Port: -1, ClusterName: "c", ClusterListen: "127.0.0.1"},
	} {
		if _, err := embednats.Start(o); err == nil {
			t.Errorf("a bad %s was taken", name)
		}
	}
}

// TestAServerThatGivesUpIsNotWaitedFor: it says why it cannot start JetStream, and is never ready.
func TestAServerThatGivesUpIsNotWaitedFor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err := embednats.Start(embednats.Options{Port: -1, JetStream: true, Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "not a directory") || strings.Contains(err.Error(), "not ready within") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("after %v", took)
	}
}

// TestServersByRoutes clusters three servers: a request crosses, and when the responder's server is gone, NATS says so.
func TestServersByRoutes(t *testing.T) {
	var servers []*embednats.Server
	var routes []string
	for i := range 3 {
		s, err := embednats.Start(embednats.Options{
			Port: -1, ServerName: fmt.Sprint("s", i), ClusterName: "c", ClusterListen: "127.0.0.1:-1", Routes: routes,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		servers, routes = append(servers, s), append(routes, "nats://"+s.ClusterAddress())
	}
	responder, err := servers[0].Connect(nats.NoReconnect()) // it would go to another server, and go on responding
	if err != nil {
		t.Fatal(err)
	}
	defer responder.Close()
	asker, err := servers[2].Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer asker.Close()
	if _, err := responder.Subscribe("echo", func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		t.Fatal(err)
	}
	ask := func() error {
		_, err := asker.Request("echo", []byte("x"), time.Second)
		return err
	}
	waitFor(t, "a request to cross the route", func() bool { return ask() == nil })
	if err := servers[0].Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "no responders", func() bool { return errors.Is(ask(), nats.ErrNoResponders) })
}

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}
