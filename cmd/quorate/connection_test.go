package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"quorate/node/kv"
	"quorate/transport/embednats"
	"quorate/transport/natsrpc"
)

// closedPort returns a port of this machine on which nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return port
}

func applied(t *testing.T, target natsTarget) nats.Options {
	t.Helper()
	var o nats.Options
	for _, option := range target.options {
		if err := option(&o); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func TestURLComesFromFlagThenContextThenEnvironment(t *testing.T) {
	config := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", config)
	write(t, filepath.Join(config, "nats", "context", "prod.json"), `{"url":"nats://context:1","user":"u","password":"p"}`)

	for _, c := range []struct {
		flags natsFlags
		env   string
		want  string
	}{
		{natsFlags{}, "", "nats://127.0.0.1:4222"},
		{natsFlags{}, "nats://env:1", "nats://env:1"},
		{natsFlags{context: "prod"}, "nats://env:1", "nats://context:1"},
		{natsFlags{context: "prod", url: "nats://flag:1"}, "nats://env:1", "nats://flag:1"},
		{natsFlags{url: "nats://flag:1"}, "nats://env:1", "nats://flag:1"},
	} {
		t.Setenv("NATS_URL", c.env)
		target, err := c.flags.target()
		if err != nil || target.url != c.want {
			t.Errorf("%+v with $NATS_URL %q: %q, %v; want %q", c.flags, c.env, target.url, err, c.want)
		}
		if o := applied(t, target); c.flags.context != "" && (o.User != "u" || o.Password != "p") {
			t.Errorf("the context's user is not used: %q %q", o.User, o.Password)
		}
	}
}

func TestUserComesFromFlagsAndPasswordFromEnvironment(t *testing.T) {
	t.Setenv("NATS_PASSWORD", "from-env")
	for flag, want := range map[string]string{"": "from-env", "from-flag": "from-flag"} {
		target, err := (&natsFlags{user: "u", password: flag}).target()
		if err != nil {
			t.Fatal(err)
		}
		if o := applied(t, target); o.User != "u" || o.Password != want {
			t.Errorf("user %q password %q, want u and %q", o.User, o.Password, want)
		}
	}
}

func TestNKeyIsRead(t *testing.T) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "user.nk")
	if err := os.WriteFile(file, seed, 0o600); err != nil {
		t.Fatal(err)
	}
	target, err := (&natsFlags{nkey: file}).target()
	if err != nil {
		t.Fatal(err)
	}
	if o := applied(t, target); o.Nkey != public {
		t.Errorf("nkey %q, want %q", o.Nkey, public)
	}
	write(t, file, "no seed")
	if _, err := (&natsFlags{nkey: file}).target(); exitStatus(t.Context(), err) != statusUsage || !strings.Contains(err.Error(), file) {
		t.Errorf("a file without a seed: %v", err)
	}
}

func TestClusterComesFromFlagThenEnvironment(t *testing.T) {
	for _, c := range []struct{ flag, env, want string }{
		{"", "", "dev"}, {"", "orders", "orders"}, {"prod", "orders", "prod"},
	} {
		t.Setenv("QUORATE_CLUSTER", c.env)
		if got, err := clusterOrDefault(c.flag); err != nil || got != c.want {
			t.Errorf("flag %q, $QUORATE_CLUSTER %q: %q, %v; want %q", c.flag, c.env, got, err, c.want)
		}
	}
	t.Setenv("QUORATE_CLUSTER", "not a token")
	if _, err := clusterOrDefault(""); exitStatus(t.Context(), err) != statusUsage {
		t.Errorf("$QUORATE_CLUSTER with spaces: %v", err)
	}
}

func TestCommandsToTryNextFitTheEnvironment(t *testing.T) {
	for _, c := range []struct{ natsURL, cluster, want string }{
		{"", "", ""},
		{"nats://other:4222", "", " --nats nats://127.0.0.1:4222"},
		{"", "other", " --cluster dev"},
	} {
		t.Setenv("NATS_URL", c.natsURL)
		t.Setenv("QUORATE_CLUSTER", c.cluster)
		if got := devClientFlags("nats://127.0.0.1:4222", "dev"); got != c.want {
			t.Errorf("with $NATS_URL %q and $QUORATE_CLUSTER %q: flags %q, want %q", c.natsURL, c.cluster, got, c.want)
		}
	}
}

func TestPasswordsAreNotShown(t *testing.T) {
	shown := natsrpc.RedactURLs("nats://u:secret@a:1, nats://b:2,nats://u:secret@%zz,u:secret@c:3,nats://secret@d:4")
	if strings.Contains(shown, "secret") || !strings.Contains(shown, "c:3") || !strings.Contains(shown, "d:4") || !strings.Contains(shown, "a:1") || !strings.Contains(shown, "nats://b:2") {
		t.Errorf("shown as %q", shown)
	}
}

// A connection that is lost while a command runs has no server's URL any more.
func TestALostConnectionIsNamed(t *testing.T) {
	server, err := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	flags := &clientFlags{nats: natsFlags{url: server.ClientURL()}, cluster: "c", timeout: patience}
	err = flags.withClient(t.Context(), "test", func(c *kv.Client) error {
		_ = server.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Get(ctx, "k")
		return err
	})
	if want := fmt.Sprintf("at %s, to which the connection is lost: ", server.ClientURL()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("want an error with %q, got: %v", want, err)
	}
}
