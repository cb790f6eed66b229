package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node"
	"quorate/test/procs"
	"quorate/transport/embednats"
)

const (
	clusterName = "chaos"
	voters      = 3
)

// cluster is serve processes, each with a cable to one NATS server.
type cluster struct {
	t      *testing.T
	binary string
	dir    string
	port   int
	server *embednats.Server
	conn   *nats.Conn
	nodes  []*member
	born   int // how many nodes there ever were
}

type member struct {
	id      string
	args    []string // for its first start
	cable   *cable
	process *procs.Process
}

func newCluster(t *testing.T, binary string) *cluster {
	t.Helper()
	c := &cluster{t: t, binary: binary, dir: t.TempDir(), port: -1}
	c.startNATS()
	t.Cleanup(func() { _ = c.server.Close() })
	c.conn = c.connect(c.url())
	var ids []string
	for range voters {
		c.born++
		ids = append(ids, fmt.Sprintf("n%d", c.born))
	}
	for _, id := range ids {
		c.add(id, "--members", strings.Join(ids, ","))
	}
	return c
}

// startNATS starts the server, always at one port.
func (c *cluster) startNATS() {
	c.t.Helper()
	var err error
	c.await("NATS to start", func() bool {
		c.server, err = embednats.Start(embednats.Options{Host: "127.0.0.1", Port: c.port, JetStream: true, Dir: filepath.Join(c.dir, "nats")})
		return err == nil
	}, func() any { return err })
	if _, err := fmt.Sscanf(c.server.ClientURL()[strings.LastIndex(c.server.ClientURL(), ":"):], ":%d", &c.port); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)) }

// url is NATS' own, past all cables.
func (c *cluster) url() string { return "nats://" + c.address() }

// connect returns a connection that comes back when NATS does.
func (c *cluster) connect(url string) *nats.Conn {
	c.t.Helper()
	conn, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectBufSize(-1))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(conn.Close)
	return conn
}

// add starts a node that was not there.
func (c *cluster) add(id string, args ...string) *member {
	c.t.Helper()
	m := &member{id: id, args: args, cable: layCable(c.t, c.address())}
	c.nodes = append(c.nodes, m)
	c.start(m)
	return m
}

func (c *cluster) start(m *member) {
	c.t.Helper()
	m.process = procs.Start(c.t, m.id, c.binary, append([]string{
		"serve", "--cluster", clusterName, "--id", m.id, "--dir", c.dirOf(m), "--nats", m.cable.url(),
		"--snapshot-entries", "400", "--keep-entries", "100",
	}, m.args...)...)
}

func (c *cluster) dirOf(m *member) string { return filepath.Join(c.dir, m.id) }

// loseDisk removes what a killed node had, and starts it with nothing.
func (c *cluster) loseDisk(m *member) {
	c.t.Helper()
	if err := os.RemoveAll(c.dirOf(m)); err != nil {
		c.t.Fatal(err)
	}
	m.args = []string{"--join"}
	c.start(m)
}

func (c *cluster) status(m *member) (node.Status, error) {
	var status node.Status
	reply, err := c.conn.Request(fmt.Sprintf("quorate.%s.node.%s.status", clusterName, m.id), nil, time.Second)
	if err != nil {
		return status, err
	}
	return status, json.Unmarshal(reply.Data, &status)
}

// leader returns who serves as one now, or nil.
func (c *cluster) leader() *member {
	for _, m := range c.nodes {
		if status, err := c.status(m); err == nil && status.Serving {
			return m
		}
	}
	return nil
}

// command runs a client command until it succeeds, which a healthy cluster lets it soon.
func (c *cluster) command(args ...string) {
	c.t.Helper()
	var out []byte
	c.await("quorate "+strings.Join(args, " "), func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), recovery)
		defer cancel()
		var err error
		out, err = exec.CommandContext(ctx, c.binary, append(args, "--cluster", clusterName, "--nats", c.url(), "--timeout", "10s")...).CombinedOutput()
		return err == nil
	}, func() any { return string(out) })
}

// recovery is how long a cluster without faults may take for whatever is asked of it, on a machine that is busy.
const recovery = 60 * time.Second

// await waits for the condition; latest tells why it does not hold.
func (c *cluster) await(what string, condition func() bool, latest func() any) {
	c.t.Helper()
	deadline := time.After(recovery)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			c.t.Fatalf("timed out waiting for %s: %v", what, latest())
		}
	}
}

// checkRunning fails the test if a node has ended that nobody killed.
func (c *cluster) checkRunning() {
	c.t.Helper()
	for _, m := range c.nodes {
		select {
		case <-m.process.Done():
			c.t.Fatalf("%s has ended by itself: %v", m.id, m.process.Err())
		default:
		}
	}
}

// kill ends a node at once, and looks at what it has said.
func (c *cluster) kill(m *member) {
	c.t.Helper()
	m.process.Kill()
	c.checkOutput(m)
}

// stop has all nodes end in good order.
func (c *cluster) stop() {
	c.t.Helper()
	for _, m := range c.nodes {
		ctx, cancel := context.WithTimeout(context.Background(), recovery)
		if err := m.process.Stop(ctx); err != nil {
			c.t.Errorf("stop %s: %v", m.id, err)
		}
		cancel()
		c.checkOutput(m)
	}
}

// checkOutput looks for what no node may ever say.
func (c *cluster) checkOutput(m *member) {
	c.t.Helper()
	for line := range strings.Lines(m.process.Output()) {
		for _, words := range []string{"refused what Raft rules out", "panic", "DATA RACE"} {
			if strings.Contains(line, words) {
				c.t.Errorf("%s said: %s", m.id, line)
			}
		}
	}
}

// leave ends a node that is no member any more.
func (c *cluster) leave(m *member) {
	c.t.Helper()
	c.kill(m)
	c.nodes = slices.DeleteFunc(c.nodes, func(other *member) bool { return other == m })
}

func (m *member) pause(t *testing.T)  { m.signal(t, syscall.SIGSTOP) }
func (m *member) resume(t *testing.T) { m.signal(t, syscall.SIGCONT) }

func (m *member) signal(t *testing.T, s syscall.Signal) {
	if err := m.process.Signal(s); err != nil {
		t.Errorf("%v to %s: %v", s, m.id, err)
	}
}
