// Package procs runs clusters of real quorate processes for the tests and benchmarks that need them: built once, each node a process
// of its own with its own directory, over one NATS server.
package procs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node"
	"quorate/test/sources"
	"quorate/transport/embednats"
)

// Build builds the quorate binary into a directory of the test's and returns its path.
func Build(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "quorate")
	BuildAt(tb, path, "quorate/cmd/quorate")
	return path
}

// BuildAt builds a package of this module to that path.
func BuildAt(tb testing.TB, path, pkg string) {
	tb.Helper()
	sources.Look(tb)
	if out, err := exec.Command("go", "build", "-o", path, pkg).CombinedOutput(); err != nil {
		tb.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
}

// Process is a started process, ended with the test at the latest.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	out  *output
}

// Start starts a program. Its output is shown if the test fails.
func Start(tb testing.TB, name, path string, args ...string) *Process {
	tb.Helper()
	p := &Process{cmd: exec.Command(path, args...), done: make(chan struct{}), out: &output{}}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	tb.Cleanup(func() {
		p.Kill()
		if tb.Failed() {
			tb.Logf("output of %s:\n%s", name, p.out.String())
		}
	})
	return p
}

// Kill ends the process at once, as kill -9 does, and waits for it to be gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Stop asks the process to end, and waits until it has.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Done is closed when the process has ended; Err tells how.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns the process's end as exec.Cmd.Wait tells it.
func (p *Process) Err() error { <-p.done; return p.err }

// Output returns what the process has written.
func (p *Process) Output() string { return p.out.String() }

type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Cluster is a cluster of serve processes over a NATS server in the test's process.
type Cluster struct {
	tb      testing.TB
	Binary  string
	Name    string
	Members []string
	URL     string
	Dir     string
	Conn    *nats.Conn
	Procs   map[string]*Process
}

// NewCluster starts a NATS server and the members, and waits until one leads. dir is where the nodes live; empty for a directory of
// the test's.
func NewCluster(tb testing.TB, binary, dir string, members ...string) *Cluster {
	tb.Helper()
	server, err := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: -1})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = server.Close() })
	if dir == "" {
		dir = tb.TempDir()
	}
	return NewClusterAt(tb, binary, dir, server.ClientURL(), members...)
}

// NewClusterAt is NewCluster over a NATS server that runs already.
func NewClusterAt(tb testing.TB, binary, dir, url string, members ...string) *Cluster {
	tb.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(conn.Close)
	c := &Cluster{
		tb: tb, Binary: binary, Name: "test", Members: members, URL: url, Dir: dir, Conn: conn, Procs: map[string]*Process{},
	}
	for _, id := range members {
		c.Start(id)
	}
	c.Leader(20 * time.Second)
	return c
}

// Start starts a member.
func (c *Cluster) Start(id string) {
	c.tb.Helper()
	c.Procs[id] = Start(c.tb, id, c.Binary, "serve", "--cluster", c.Name, "--id", id,
		"--members", strings.Join(c.Members, ","), "--dir", filepath.Join(c.Dir, id), "--nats", c.URL)
}

// Status asks a member for its status.
func (c *Cluster) Status(id string) (node.Status, error) {
	var status node.Status
	reply, err := c.Conn.Request(fmt.Sprintf("quorate.%s.node.%s.status", c.Name, id), nil, time.Second)
	if err != nil {
		return status, err
	}
	return status, json.Unmarshal(reply.Data, &status)
}

// Leader waits until a member serves as leader and returns its id.
func (c *Cluster) Leader(patience time.Duration) string {
	c.tb.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, id := range c.Members {
			if status, err := c.Status(id); err == nil && status.Serving {
				return id
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			c.tb.Fatalf("no leader within %v", patience)
		}
	}
}

// WaitApplied waits until all members have applied the entries up to the index, at least.
func (c *Cluster) WaitApplied(index uint64, patience time.Duration) {
	c.tb.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		behind := ""
		for _, id := range c.Members {
			if status, err := c.Status(id); err != nil || status.AppliedIndex < index {
				behind = fmt.Sprintf("%s is at %d (%v)", id, status.AppliedIndex, err)
			}
		}
		if behind == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			c.tb.Fatalf("not all members applied index %d within %v: %s", index, patience, behind)
		}
	}
}
