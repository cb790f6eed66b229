package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary is the program, too: started again with asCommand set it does what quorate does. So the processes of the tests are
// built once, and with the race detector when the tests are.
const (
	asCommand = "QUORATE_TEST_AS_COMMAND"
	// stuck is a program that does not end at the first signal.
	stuck = "QUORATE_TEST_STUCK"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asCommand) != "":
		main()
	case os.Getenv(stuck) != "":
		ctx := interruptible(context.Background())
		fmt.Println("running")
		<-ctx.Done()
		fmt.Println("interrupted")
		select {}
	}
	for _, name := range []string{"NATS_URL", "NATS_PASSWORD", "QUORATE_CLUSTER"} {
		_ = os.Unsetenv(name) // of whoever runs the tests
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what should take seconds at most.
const patience = time.Minute

// process is a running quorate.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	lines chan string // of standard output
	mu    sync.Mutex  // guards stderr
	errs  bytes.Buffer
}

// start starts quorate with these arguments. It is killed at the end of the test at the latest.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	return startAs(t, asCommand, args...)
}

func startAs(t *testing.T, role string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0], args...), done: make(chan struct{}), lines: make(chan string, 1000)}
	p.cmd.Env = childEnv(role)
	p.cmd.Stderr = p
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		defer close(p.lines)
		scanner := bufio.NewScanner(stdout)
		for scanner.Scan() {
			p.lines <- scanner.Text()
		}
		_ = p.cmd.Wait() // the exit status is in ProcessState
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
		if t.Failed() {
			t.Logf("standard error of quorate %s:\n%s", strings.Join(args, " "), p.stderr())
		}
	})
	return p
}

// childEnv is the environment of a process in a role. With the race detector it would sleep a second before it ends.
func childEnv(role string) []string {
	return append(os.Environ(), role+"=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
}

// Write takes the process's standard error.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.errs.Write(b)
}

func (p *process) stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.errs.String()
}

// line returns the next line of standard output.
func (p *process) line() string {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		if !ok {
			p.t.Fatalf("ended without another line:\n%s", p.stderr())
		}
		return line
	case <-time.After(patience):
		p.t.Fatalf("no line within %v:\n%s", patience, p.stderr())
	}
	panic("unreachable")
}

// waitFor waits until standard error has the text.
func (p *process) waitFor(text string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%q on standard error", text), func() bool { return strings.Contains(p.stderr(), text) })
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
}

// ended waits for the end and returns the exit status.
func (p *process) ended() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatalf("did not end within %v:\n%s", patience, p.stderr())
	}
	panic("unreachable")
}

// stop sends SIGTERM and wants a clean end.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if status := p.ended(); status != statusDone {
		p.t.Fatalf("exit status %d after SIGTERM:\n%s", status, p.stderr())
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no %s within %v", what, patience)
		}
	}
}

// quorate runs a client command in a process of its own, to its end.
func quorate(t *testing.T, stdin io.Reader, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = childEnv(asCommand)
	cmd.Stdin = stdin
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("quorate %s: %v, %v\n%s", strings.Join(args, " "), err, ctx.Err(), errs.String())
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// must is quorate with exit status 0 and text for standard input. It returns standard output.
func must(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	status, stdout, stderr := quorate(t, strings.NewReader(stdin), args...)
	if status != statusDone {
		t.Fatalf("quorate %s: exit status %d\n%s%s", strings.Join(args, " "), status, stdout, stderr)
	}
	return stdout
}

// wantStatus runs a command and wants it to fail, with the exit status and a message that has the text.
func wantStatus(t *testing.T, want int, says string, args ...string) {
	t.Helper()
	status, stdout, stderr := quorate(t, strings.NewReader(""), args...)
	if status != want || !strings.Contains(stderr, says) {
		t.Errorf("quorate %s: exit status %d, want %d, and a message with %q\n%s%s", strings.Join(args, " "), status, want, says, stdout, stderr)
	}
}

// readJSON decodes one line of JSON.
func readJSON[T any](t *testing.T, line string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return v
}

func TestSecondSignalEndsTheProcessAtOnce(t *testing.T) {
	p := startAs(t, stuck)
	p.line()
	p.signal(os.Interrupt)
	if line := p.line(); line != "interrupted" {
		t.Fatalf("got %q", line)
	}
	p.signal(syscall.SIGTERM)
	if status := p.ended(); status != statusInterrupted {
		t.Errorf("exit status %d, want %d", status, statusInterrupted)
	}
}
