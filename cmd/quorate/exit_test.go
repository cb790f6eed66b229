package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node"
	"quorate/node/kv"
)

func TestExitStatusOfErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, statusDone},
		{kv.ErrNotFound, statusFalse},
		{kv.ErrCondition, statusFalse},
		{kv.ErrInvalidKey, statusUsage},
		{usagef("wrong"), statusUsage},
		{&kv.TooLargeError{Size: 2, Limit: 1}, statusUsage},
		{kv.ErrUnavailable, statusUnavailable},
		{kv.ErrUnknownOutcome, statusUnavailable},
		{context.DeadlineExceeded, statusUnavailable},
		{nats.ErrNoServers, statusUnavailable},
		{nats.ErrNoResponders, statusUnavailable},
		{errors.New("disk on fire"), statusFailed},
		{withStatus(statusFalse, context.DeadlineExceeded), statusFalse},
		{errors.Join(nil, kv.ErrNotFound), statusFalse},
	} {
		if c.err != nil {
			c.err = fmt.Errorf("what was being done: %w", c.err)
		}
		if got := exitStatus(t.Context(), c.err); got != c.want {
			t.Errorf("exit status of %v is %d, want %d", c.err, got, c.want)
		}
	}
}

func TestExitStatusOfAnInterrupt(t *testing.T) {
	ctx, interrupt := context.WithCancelCause(t.Context())
	interrupt(errInterrupted)
	if got := exitStatus(ctx, ctx.Err()); got != statusInterrupted {
		t.Errorf("exit status %d, want %d", got, statusInterrupted)
	}
	for _, outcome := range []error{kv.ErrUnknownOutcome, node.ErrUnknownOutcome} {
		unknown := fmt.Errorf("put: %w: %w", outcome, ctx.Err())
		for _, err := range []error{unknown, withStatus(statusUnavailable, unknown)} {
			if got := exitStatus(ctx, err); got != statusUnavailable {
				t.Errorf("exit status %d for a write that was interrupted, want %d: its outcome is unknown", got, statusUnavailable)
			}
		}
	}
	if got := exitStatus(ctx, withStatus(statusUnavailable, ctx.Err())); got != statusInterrupted {
		t.Errorf("exit status %d for a question that was interrupted, want %d", got, statusInterrupted)
	}
}

// runCommand runs a command line in this process.
func runCommand(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	status = run(t.Context(), args, strings.NewReader(stdin), &out, &err)
	return status, out.String(), err.String()
}

func TestWrongUsage(t *testing.T) {
	dir := t.TempDir()
	noPEM := filepath.Join(t.TempDir(), "no.pem")
	write(t, noPEM, "hello")
	for _, c := range []struct {
		args string
		says string
	}{
		{"bogus", "unknown command"},
		{"put", "KEY is missing"},
		{"put k", "VALUE is missing"},
		{"get a b", "too much"},
		{"get k --bogus", "unknown flag"},
		{"get k --timeout soon", "invalid argument"},
		{"get k --timeout 0s", "--timeout"},
		{"get k --output xml", "--output"},
		{"get k --cluster a.b", "cluster name"},
		{"get k --creds /missing/file", "--creds"},
		{"get k --creds " + noPEM, "not a NATS credentials file"},
		{"get k --nats :::", "NATS URL"},
		{"member lss", `unknown command "lss"`},
		{"snapshot foo", `unknown command "foo"`},
		{"setting foo", `unknown command "foo"`},
		{"trace foo", `unknown command "foo"`},
		{"leader foo", `unknown command "foo"`},
		{"member foo --help", `unknown command "foo"`},
		{"leader foo -h", `unknown command "foo"`},
		{"help foo", `unknown command "foo"`},
		{"help member foo", `unknown command "member foo"`},
		{"leader transfer n.1", "node id"},
		{"import " + dir + " --patience -1s", "--patience"},
		{"serve --id n1 --members n1 --dir " + dir + " --metrics-listen x", "--metrics-listen"},
		{"dev --metrics-listen 127.0.0.1:http:1", "--metrics-listen"},
		{"serve --id n1 --members n1 --dir " + dir + " --embed --listen 127.0.0.1:4333 --route-listen 127.0.0.1:4333", "a port each"},
		{"get k --user u --nkey " + dir, "exclude each other"},
		{"get k --password p", "--password needs --user"},
		{"get k --tlscert " + dir, "--tlscert and --tlskey"},
		{"get k --context bogus-context", "--context"},
		{"get k --nats nats://[::", "NATS URL"},
		{"get k --nats http://127.0.0.1:4222", `scheme "http"`},
		{"get k --nats nats://127.0.0.1:4222,nats://127.0.0.1:99999", "127.0.0.1:99999: the port"},
		{"get k --nats 127.0.0.1:0", "port"},
		{"get k --tlsca " + noPEM, noPEM},
		{"get k --tlscert " + noPEM + " --tlskey " + noPEM, "certificate"},
		{"put k v --if-revision -1", "invalid argument"},
		{"ls --values", "--output json"},
		{"status --node a.b", "node id"},
		{"import " + dir + " --concurrency 0", "--concurrency"},
		{"bench --ops delete", "--ops"},
		{"bench --clients 0", "--clients"},
		{"bench --clients 9223372036854775807", "--clients"},
		{"bench --keys 0", "--keys"},
		{"bench --size -1", "--size"},
		{"bench --size 9223372036854775807", "--size"},
		{"bench --keys 9223372036854775807", "--keys"},
		{"bench --prefix " + strings.Repeat("p", kv.MaxKeyBytes), "--prefix"},
		{"snapshot restore", "required flag"},
		{"snapshot restore --cluster c --id n1 --dir " + filepath.Join(dir, "r") + " --file f --max-entry-bytes lots", "--max-entry-bytes"},
		{"snapshot restore --cluster c --id n1 --dir " + filepath.Join(dir, "r") + " --file f --max-entry-bytes 64MiB", "--max-entry-bytes"},
		{"snapshot restore --cluster c --id n1 --dir " + filepath.Join(dir, "r") + " --file f --max-entry-bytes 1023", "--max-entry-bytes"},
		{"recover --cluster c --id n1", "required flag"},
		{"snapshot restore --cluster c --id n.1 --dir " + filepath.Join(dir, "r") + " --nats nats://127.0.0.1:1", "--id"},
		{"bench --duration 0s", "--duration"},
		{"bench --clients 1 --connections 2", "--connections"},
		{"dev --nodes 0", "--nodes"},
		{"dev --nodes 1000", "--nodes"},
		{"dev --port 70000", "--port"},
		{"dev --port -1", "--port"},
		{"dev --max-payload lots", "--max-payload"},
		{"dev --log-level loud", "--log-level"},
		{"dev --ephemeral --dir " + dir, "exclude each other"},
		{"serve --dir " + dir, "--id"},
		{"serve --id n1", "--dir"},
		{"serve --id n.1 --dir " + dir, "node name"},
		{"serve --id n1 --members n2,n3 --dir " + dir, "do not include"},
		{"serve --id n1 --members n1,n2,n1 --dir " + dir, "twice"},
		{"serve --id n1 --members n1 --dir " + dir + " --listen :4222", "--listen needs --embed"},
		{"serve --id n1 --members n1 --dir " + dir + " --embed --nats nats://x", "--embed"},
		{"serve --id n1 --members n1 --dir " + dir + " --embed --route nats://x", "--route-listen"},
		{"serve --id n1 --members n1 --dir " + dir + " --embed --listen x", "--listen"},
		{"serve --id n1 --members n1 --dir " + dir + " --embed --route-listen 127.0.0.1:0 --route x", `"nats://x" must be nats://host:port`},
		{"serve --id n1 --members n1 --dir " + dir + " --embed --route-listen 127.0.0.1:0 --route x:99999", "port from 1 to 65535"},
		{"serve --id n1 --members n1 --dir " + dir + " --nats nats://", "NATS URL"},
		{"serve --id n1 --members n1 --dir " + filepath.Join(dir, "new") + " --priority 1001", "priority"},
		{"serve --id n1 --members n1 --dir " + filepath.Join(dir, "new") + " --replace-after -1s", "negative"},
		{"serve --id n1 --members n1 --dir " + dir + " --log-format xml", "--log-format"},
	} {
		status, stdout, stderr := runCommand(t, "", strings.Fields(c.args)...)
		if status != statusUsage || !strings.Contains(stderr, c.says) || !strings.Contains(stderr, "--help") || stdout != "" {
			t.Errorf("quorate %s: exit status %d, want %d, and a message with %q\nstdout: %s\nstderr: %s",
				c.args, status, statusUsage, c.says, stdout, stderr)
		}
	}
}

// TestEmptyPathIsWrongUsage: a script's variable that is not set must not stand for the present directory.
func TestEmptyPathIsWrongUsage(t *testing.T) {
	t.Setenv("NATS_URL", "nats://127.0.0.1:"+closedPort(t))
	t.Chdir(t.TempDir())
	write(t, filepath.Join(logDir, "a node's"), "x")
	for command, says := range map[string]string{
		"import ": "DIR is empty", "export ": "DIR is empty", "snapshot save ": "FILE is empty", "snapshot verify ": "FILE is empty",
		"recover --cluster c --id n1 --dir ": "--dir is empty", "snapshot restore --cluster c --id n1 --file f --dir ": "--dir is empty",
	} {
		if status, _, stderr := runCommand(t, "", strings.Split(command, " ")...); status != statusUsage || !strings.Contains(stderr, says) {
			t.Errorf("%s\"\": exit status %d\n%s", command, status, stderr)
		}
	}
}

// TestBackupTakesThePlaceOfFilesOnly: --overwrite would put it in the place of a device.
func TestBackupTakesThePlaceOfFilesOnly(t *testing.T) {
	t.Setenv("NATS_URL", "nats://127.0.0.1:"+closedPort(t))
	dir := t.TempDir()
	paths := []string{dir}
	if link := filepath.Join(dir, "link"); os.Symlink(os.DevNull, link) == nil { // not everybody may on Windows
		paths = append(paths, link)
	}
	for _, path := range paths {
		status, _, stderr := runCommand(t, "", "snapshot", "save", path, "--overwrite")
		if status != statusUsage || !strings.Contains(stderr, "no regular file") {
			t.Errorf("%s: exit status %d\n%s", path, status, stderr)
		}
	}
}

func TestInputWithoutEndIsRefused(t *testing.T) {
	for _, command := range [][]string{{"put", "k", "-"}, {"trace", "put", "k", "-"}} {
		var out, err bytes.Buffer
		status := run(t.Context(), command, endless{}, &out, &err)
		if status != statusUsage || !strings.Contains(err.String(), "standard input") {
			t.Errorf("%s: exit status %d\n%s", command, status, &err)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestRecoverMakesNoDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mistyped")
	status, _, stderr := runCommand(t, "", "recover", "--cluster", "c", "--id", "n1", "--dir", dir)
	if status != statusFailed || !strings.Contains(stderr, dir) {
		t.Errorf("exit status %d\n%s", status, stderr)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("it made %s (%v)", dir, err)
	}
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	a := &app{}
	for _, cmd := range a.rootCommand().Commands() {
		status, stdout, _ := runCommand(t, "", cmd.Name(), "--help")
		if status != statusDone || !strings.Contains(stdout, "Examples:\n  quorate "+cmd.Name()) {
			t.Errorf("quorate %s --help: exit status %d, and no example:\n%s", cmd.Name(), status, stdout)
		}
	}
}

// TestHelpThatCannotBeWrittenFails as any other output does.
func TestHelpThatCannotBeWrittenFails(t *testing.T) {
	for _, args := range []string{"--help", "help", "get --help", "help get", "member", "completion bash", "version"} {
		var stderr bytes.Buffer
		full := fullDisk{errors.New("no space left on device")}
		status := run(t.Context(), strings.Fields(args), strings.NewReader(""), full, &stderr)
		if status != statusFailed || !strings.Contains(stderr.String(), full.err.Error()) {
			t.Errorf("quorate %s: exit status %d, want %d\n%s", args, status, statusFailed, &stderr)
		}
	}
}

// fullDisk is a writer that has no room.
type fullDisk struct{ err error }

func (d fullDisk) Write([]byte) (int, error) { return 0, d.err }

func TestUnreachableNATSIsUnavailable(t *testing.T) {
	port := closedPort(t)
	for _, args := range [][]string{
		{"put", "k", "v"}, {"get", "k"}, {"del", "k"}, {"ls"}, {"status"}, {"leader"}, {"import", t.TempDir()}, {"export", t.TempDir()}, {"bench"},
	} {
		status, _, stderr := runCommand(t, "", append(args, "--nats", "nats://u:secret@127.0.0.1:"+port)...)
		if status != statusUnavailable || !strings.Contains(stderr, "cannot be reached") || !strings.Contains(stderr, port) {
			t.Errorf("quorate %s: exit status %d, want %d\n%s", args[0], status, statusUnavailable, stderr)
		}
		if strings.Contains(stderr, "secret") {
			t.Errorf("quorate %s shows the password: %s", args[0], stderr)
		}
	}
}

// TestInterruptIsHeardWhileNATSIsSilent: something accepts the connection and never says a word.
func TestInterruptIsHeardWhileNATSIsSilent(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	address := listener.Addr().String()
	at := " --nats nats://" + address
	for _, args := range []string{"get k" + at, "leader --wait" + at, "member ls" + at, "health --metrics " + address} {
		ctx, interrupt := context.WithCancelCause(t.Context())
		accepted := make(chan error, 1)
		go func() {
			conn, err := listener.Accept()
			accepted <- err
			if err == nil {
				defer conn.Close()
				_, _ = io.Copy(io.Discard, conn)
			}
		}()
		ended := make(chan int, 1)
		var stderr bytes.Buffer
		go func() {
			words := append(strings.Fields(args), "--timeout", "1h")
			ended <- run(ctx, words, strings.NewReader(""), io.Discard, &stderr)
		}()
		select {
		case err := <-accepted:
			if err != nil {
				t.Fatal(err)
			}
		case status := <-ended:
			t.Fatalf("%s: exit status %d before it connects\n%s", args, status, &stderr)
		}
		interrupt(errInterrupted)
		select {
		case status := <-ended:
			if status != statusInterrupted {
				t.Errorf("%s: exit status %d, want %d\n%s", args, status, statusInterrupted, &stderr)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: an interrupt is not heard", args)
		}
	}
}

// startSilent starts a NATS server where somebody gets all that a cluster is asked, and never answers.
func startSilent(t *testing.T, cluster string) (url string, asked *nats.Subscription) {
	t.Helper()
	url = startNATS(t)
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	asked, err = conn.SubscribeSync("quorate." + cluster + ".>")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	return url, asked
}

// TestInterruptIsHeardWhileNodesAreSilent: somebody gets the request and never answers, as paused nodes do.
func TestInterruptIsHeardWhileNodesAreSilent(t *testing.T) {
	url, asked := startSilent(t, "c")
	for _, args := range []string{"status", "status --node n1", "leader", "leader --wait", "health", "get k", "ls", "member ls", "setting", "snapshot take", "trace get k"} {
		ctx, interrupt := context.WithCancelCause(t.Context())
		ended := make(chan int, 1)
		var stderr bytes.Buffer
		go func() {
			words := append(strings.Fields(args), "--timeout", "1h", "--cluster", "c", "--nats", url)
			ended <- run(ctx, words, strings.NewReader(""), io.Discard, &stderr)
		}()
		if _, err := asked.NextMsg(patience); err != nil {
			t.Fatalf("%s asks nobody: %v", args, err)
		}
		interrupt(errInterrupted)
		select {
		case status := <-ended:
			said := stderr.String()
			if status != statusInterrupted || strings.Contains(said, errNobody.Error()) || strings.Count(said, "\n") > 1 {
				t.Errorf("%s: exit status %d, want %d, and one line\n%s", args, status, statusInterrupted, said)
			}
		case <-time.After(patience):
			t.Fatalf("%s: an interrupt is not heard", args)
		}
	}
}

func TestHelpOfCommandsThatHoldOthers(t *testing.T) {
	for _, args := range []string{"member", "help member", "help member add", "snapshot"} {
		if status, stdout, stderr := runCommand(t, "", strings.Fields(args)...); status != statusDone || !strings.Contains(stdout, "Usage:") {
			t.Errorf("%s: exit status %d\n%s%s", args, status, stdout, stderr)
		}
	}
}

func TestVersion(t *testing.T) {
	if status, stdout, _ := runCommand(t, "", "version"); status != statusDone || !strings.HasPrefix(stdout, "quorate ") {
		t.Errorf("version: %d %q", status, stdout)
	}
	if status, stdout, _ := runCommand(t, "", "version", "-o", "json"); status != statusDone || !strings.Contains(stdout, `"go":"go`) {
		t.Errorf("version: %d %q", status, stdout)
	}
}

func TestClusterThatIsNotThereIsUnavailable(t *testing.T) {
	t.Setenv("NATS_URL", startNATS(t))
	source := t.TempDir()
	write(t, filepath.Join(source, "f"), "x")
	for _, args := range [][]string{
		{"put", "k", "v"}, {"get", "k"}, {"del", "k"}, {"ls"}, {"status"}, {"leader"},
		{"import", source, "--patience", "300ms"}, {"export", t.TempDir()},
		{"bench", "--clients", "2", "--warmup", "0s", "--duration", "200ms"}, {"bench", "--ops", "get", "--clients", "2"},
	} {
		status, _, stderr := runCommand(t, "", append(args, "--cluster", "nobody", "--timeout", "300ms")...)
		if status != statusUnavailable {
			t.Errorf("quorate %s: exit status %d, want %d\n%s", strings.Join(args, " "), status, statusUnavailable, stderr)
		}
	}
}

// TestAnAddressWithoutASchemeIsNamed: it is no malformed URL, as a message once had it.
func TestAnAddressWithoutASchemeIsNamed(t *testing.T) {
	address := "127.0.0.1:" + closedPort(t)
	status, _, stderr := runCommand(t, "", "get", "k", "--nats", "u:secret@"+address)
	if status != statusUnavailable || !strings.Contains(stderr, address) || strings.Contains(stderr, "secret") {
		t.Errorf("exit status %d\n%s", status, stderr)
	}
}
