package natsrpc_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"quorate/transport/natsrpc"
)

// journal is a log that a test reads while it is written.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

func TestRefusedLoginIsSaidInWords(t *testing.T) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, Username: "u", Password: "right"})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	log := &journal{}
	failed := make(chan error, 1)
	go func() {
		_, err := natsrpc.Connect(ctx, natsrpc.ConnectOptions{
			URL: s.ClientURL(), Logger: log.logger(), Options: []nats.Option{nats.UserInfo("u", "wrong-secret")},
		})
		failed <- err
	}()
	waitFor(t, "the log to say so", func() bool { return strings.Contains(log.String(), "NATS refuses the login") })
	if strings.Contains(log.String(), "wrong-secret") {
		t.Error("the log tells the password")
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) || !errors.Is(err, nats.ErrAuthorization) {
		t.Fatalf("got %v", err)
	}
}

func TestNATSMayStartLater(t *testing.T) {
	first := startServer(t, -1)
	port, url := first.Port(), first.ClientURL()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	log := &journal{}
	connected := make(chan error, 1)
	go func() {
		conn, err := natsrpc.Connect(t.Context(), natsrpc.ConnectOptions{URL: url, Logger: log.logger()})
		if err == nil {
			conn.Close()
		}
		connected <- err
	}()
	waitFor(t, "the log to say so", func() bool {
		return strings.Contains(log.String(), "cannot reach NATS, trying again") && strings.Contains(log.String(), url)
	})
	startServer(t, port)
	if err := <-connected; err != nil {
		t.Fatal(err)
	}
}

func TestBadURLIsAnErrorAtOnce(t *testing.T) {
	for _, url := range []string{"nats://\x7f", "http//:nowhere:x"} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err := natsrpc.Connect(ctx, natsrpc.ConnectOptions{URL: url, Logger: slog.New(slog.DiscardHandler)}); err == nil || ctx.Err() != nil {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// What the client library drops must be seen.
func TestSlowConsumerIsCounted(t *testing.T) {
	server := startServer(t, -1)
	log := &journal{}
	events := &natsrpc.Events{}
	conn, err := natsrpc.Connect(t.Context(), natsrpc.ConnectOptions{URL: server.ClientURL(), Logger: log.logger(), Events: events})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	block := make(chan struct{})
	defer close(block)
	sub, err := conn.Subscribe("flood", func(*nats.Msg) { <-block })
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(1, -1); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := conn.Publish("flood", nil); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the count", func() bool { return events.SlowConsumers.Load() > 0 && strings.Contains(log.String(), "flood") })
}
