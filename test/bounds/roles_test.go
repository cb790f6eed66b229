package bounds

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node"
	"quorate/node/raft"
	"quorate/transport/embednats"
)

// The benchmarks run their servers in processes of their own: this test binary, started again with a role.
const (
	roleEnv = "QUORATE_BOUNDS_ROLE"
	urlEnv  = "QUORATE_BOUNDS_URL"
	dirEnv  = "QUORATE_BOUNDS_DIR"
	idEnv   = "QUORATE_BOUNDS_ID"
)

func TestMain(m *testing.M) {
	role := os.Getenv(roleEnv)
	if role == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := play(ctx, role, os.Getenv(urlEnv), os.Getenv(dirEnv), os.Getenv(idEnv)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func play(ctx context.Context, role, url, dir, id string) error {
	switch role {
	case "server":
		server, err := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: -1})
		if err != nil {
			return err
		}
		fmt.Println(server.ClientURL())
		<-ctx.Done()
		return server.Close()
	case "jetstream":
		server, err := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: -1, JetStream: true, Dir: dir})
		if err != nil {
			return err
		}
		fmt.Println(server.ClientURL())
		<-ctx.Done()
		return server.Close()
	case "store":
		return playStore(ctx, url, dir, id, "n1", "n2", "n3")
	case "only-store":
		return playStore(ctx, url, dir, id, raft.NodeID(id))
	case "joining-store":
		return playStore(ctx, url, dir, id)
	case "bare-follower":
		return playBareFollower(ctx, url, dir, id)
	case "bare-leader":
		return playBareLeader(ctx, url, dir, id)
	case "echo":
		conn, err := nats.Connect(url)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Subscribe("echo", func(m *nats.Msg) { _ = m.Respond(m.Data[:8]) }); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	case "node":
		n, err := startNode(id, url, dir, 4*time.Second)
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-n.Done():
		}
		return n.Close(context.Background())
	}
	return fmt.Errorf("no role %q", role)
}

func startRole(tb testing.TB, role, url, dir, id string) io.Reader {
	tb.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+role, urlEnv+"="+url, dirEnv+"="+dir, idEnv+"="+id)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		killer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer killer.Stop()
		_ = cmd.Wait()
	})
	return out
}

// startServer starts a NATS server and returns its URL.
func startServer(tb testing.TB) string {
	tb.Helper()
	var url string
	if _, err := fmt.Fscanln(startRole(tb, "server", "", "", ""), &url); err != nil || !strings.HasPrefix(url, "nats://") {
		tb.Fatalf("NATS server did not start: %q %v", url, err)
	}
	return url
}

// sink is a state machine that only counts, so that the benchmark measures consensus and not an application.
type sink struct{}

func (sink) Apply(batch node.Batch) ([][]byte, error) {
	return make([][]byte, len(batch.Commands)), nil
}
func (sink) Snapshot() (node.Snapshot, error) { return nil, fmt.Errorf("nothing to keep") }
func (sink) Restore(context.Context, node.SnapshotMeta, io.Reader) error {
	return fmt.Errorf("nothing to restore")
}
func (sink) Close() error { return nil }

// filesystem names the kind of file system that a directory is on.
func filesystem(dir string) (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "unknown", nil // not Linux
	}
	kind, longest := "unknown", -1
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		dash := strings.Index(line, " - ")
		if len(fields) < 5 || dash < 0 {
			continue
		}
		at, rest := fields[4], strings.Fields(line[dash+3:])
		inside := at == "/" || dir == at || strings.HasPrefix(dir, at+"/")
		if inside && len(at) > longest {
			kind, longest = rest[0], len(at)
		}
	}
	return kind, nil
}
