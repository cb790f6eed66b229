// Package readme runs what README.md shows.
package readme

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quorate/test/procs"
)

// commands returns the shell blocks of the README, and what stands between backquotes in its running text.
func commands(t *testing.T, root string) (blocks, inText []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllSubmatch(text, -1) {
		blocks = append(blocks, strings.TrimSpace(string(match[1])))
	}
	text = regexp.MustCompile("(?s)```.*?```").ReplaceAll(text, nil)
	for _, match := range regexp.MustCompile("`([^`]+)`").FindAllSubmatch(text, -1) {
		inText = append(inText, strings.Join(strings.Fields(string(match[1])), " "))
	}
	return blocks, inText
}

// machine is a user's shell: a home, a directory to work in, the binaries, and ports of its own in place of the well-known ones.
type machine struct {
	t    *testing.T
	root string // of the repository
	work string
	env  []string
	port *strings.Replacer // all at once: a port of its own may look like a well-known one
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var ports []string
	for _, port := range []string{"4222", "4223", "4224", "4225", "6222", "6223", "6224", "9464"} {
		free := freePort(t)
		for slices.Contains(ports, free) {
			free = freePort(t)
		}
		ports = append(ports, port, free)
	}
	m := &machine{t: t, root: root, work: t.TempDir(), port: strings.NewReplacer(ports...)}
	bin := t.TempDir()
	for name, pkg := range map[string]string{"quorate": "quorate/cmd/quorate", "nats": "quorate/test/readme/nats"} {
		procs.BuildAt(t, filepath.Join(bin, name), pkg)
	}
	home := t.TempDir()
	m.env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "XDG_STATE_HOME="+home, "QUORATE_CLUSTER=",
		"NATS_URL="+m.port.Replace("nats://127.0.0.1:4222"))
	return m
}

// freePort returns a port that nobody listens on. It is used a minute later, so it is not one of those that systems give to connections and to
// listeners that take any: by then it would now and then be another's.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(20_000 + rand.N(10_000))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

func (m *machine) command(ctx context.Context, script string) *exec.Cmd {
	script = m.port.Replace(script)
	cmd := exec.CommandContext(ctx, "sh", "-e", "-c", script)
	cmd.Env = m.env
	if cmd.Dir = m.work; strings.Contains(script, "./cmd/quorate") || strings.Contains(script, "go test") {
		cmd.Dir = m.root
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what it leaves in the background is ended with it
	return cmd
}

// patience is how long a command may take: some build first, for minutes where other tests build and run.
const patience = 5 * time.Minute

// run runs a block to its end and returns what it printed. What it started in the background runs until the test ends.
func (m *machine) run(script string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	out, err := os.CreateTemp(m.t.TempDir(), "out")
	if err != nil {
		m.t.Fatal(err)
	}
	defer out.Close()
	cmd := m.command(ctx, script)
	cmd.Stdout, cmd.Stderr = out, out // a file, so that processes in the background do not keep a pipe open
	err = cmd.Run()
	group := cmd.Process.Pid
	m.t.Cleanup(func() { endGroup(group) })
	text, readErr := os.ReadFile(out.Name())
	if err != nil || readErr != nil {
		m.t.Fatalf("%s\n%v %v\n%s", script, err, readErr, text)
	}
	return string(text)
}

// endGroup ends the processes of a group and waits until they are gone, so that their files can be removed.
func endGroup(group int) {
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for syscall.Kill(-group, syscall.SIGKILL) == nil && time.Now().Before(deadline) {
		<-tick.C
	}
}

// background starts a command that runs until it is interrupted, and waits until it has printed the text.
func (m *machine) background(script, ready string) (interrupt func()) {
	m.t.Helper()
	cmd := m.command(context.Background(), "exec "+script)
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var once sync.Once
	stop := func(signal syscall.Signal) {
		once.Do(func() {
			_ = syscall.Kill(-cmd.Process.Pid, signal)
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				m.t.Errorf("%s: does not end when it is interrupted", script)
				<-ended
			}
		})
	}
	m.t.Cleanup(func() { stop(syscall.SIGKILL) })
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !strings.Contains(out.String(), ready) {
		select {
		case <-tick.C:
		case err := <-ended:
			ended <- err
			m.t.Fatalf("%s ended: %v\n%s", script, err, out)
		case <-deadline:
			m.t.Fatalf("%s is not ready\n%s", script, out)
		}
	}
	return func() { stop(syscall.SIGINT) }
}

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

// TestEveryCommandOfTheReadme runs the README's blocks in their order, as a newcomer would. A block that it does not know how to run
// fails it.
func TestEveryCommandOfTheReadme(t *testing.T) {
	m := newMachine(t)
	var interrupt func()
	blocks, _ := commands(t, m.root)
	for _, block := range blocks {
		switch {
		case block == "go run ./cmd/quorate dev":
			// On another port than the well-known one, which may be taken.
			interrupt = m.background(block+" --port 4222", "Ctrl-C stops it")
		case block == "go test ./...":
			m.isWhatTheGateRuns(block)
		case strings.HasPrefix(block, "go test ./test/bounds "):
			if list := m.run("go test ./test/bounds -list Benchmark"); !strings.Contains(list, "BenchmarkFailover") {
				t.Errorf("%s: there are only these: %s", block, list)
			}
		case strings.Contains(block, "docker-compose"):
			t.Logf("needs Docker: go test ./test/compose runs this, with QUORATE_COMPOSE=1\n%s", block)
		case interrupt == nil:
			t.Fatalf("no cluster to run this on yet:\n%s", block)
		default:
			out := m.run(block)
			if want := expected(block); want == "" {
				t.Errorf("%s\nnobody has said what this must print, which is\n%s", block, out)
			} else if !strings.Contains(out, want) {
				t.Errorf("%s\ndoes not print %q but\n%s", block, want, out)
			}
		}
	}
	if interrupt == nil {
		t.Fatal("the README does not start a cluster")
	}
	interrupt()
}

// TestCommandsInTheTextOfTheReadme: what the text calls a command is one.
func TestCommandsInTheTextOfTheReadme(t *testing.T) {
	m := newMachine(t)
	_, inText := commands(t, m.root)
	ran := map[string]int{}
	for _, code := range inText {
		program, arguments, _ := strings.Cut(code, " ")
		if arguments == "" {
			continue
		}
		ran[program]++
		switch {
		case code == "go install ./cmd/quorate":
			bin := t.TempDir()
			m.run("GOBIN='" + bin + "' " + code)
			m.run("'" + bin + "/quorate' version")
		case program == "go":
			t.Errorf("%s: nobody has said how to test this", code)
		case program == "quorate":
			m.run("quorate help " + arguments)
		case program == "serve":
			end := m.background("quorate "+code+" --cluster text --id n1 --members n1 --dir ./text --embed --listen 127.0.0.1:4222", "role=leader")
			for path, want := range map[string]string{"/metrics": "quorate_", "/healthz": "", "/readyz": ""} {
				m.serves(m.port.Replace("http://127.0.0.1:9464"+path), want)
			}
			end()
		}
	}
	for _, program := range []string{"go", "quorate", "serve"} {
		if ran[program] == 0 {
			t.Errorf("the text has no command of %q", program)
		}
	}
}

// serves waits until a page is there that has the text.
func (m *machine) serves(url, want string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		status, body, err := get(ctx, url)
		if err == nil && status == http.StatusOK && strings.Contains(body, want) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			m.t.Fatalf("%s does not serve %q: status %d, %v\n%s", url, want, status, err, body)
		}
	}
}

func get(ctx context.Context, url string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	return response.StatusCode, string(raw), err
}

// expected is what a block's output must hold; "" if nobody has said.
func expected(block string) string {
	switch {
	case strings.Contains(block, "quorate trace put"):
		return "raft.append"
	case strings.Contains(block, "get greeting"), strings.Contains(block, "kv.get.greeting"):
		return "hello"
	case strings.Contains(block, "quorate status --cluster prod"):
		return "n3"
	case strings.Contains(block, "quorate member ls"):
		return "n4"
	case strings.Contains(block, "quorate snapshot verify"):
		return "whole"
	case strings.Contains(block, "put --cluster edge"):
		return "revision"
	case strings.Contains(block, "quorate bench"):
		return "ops/s"
	case strings.Contains(block, "import"):
		return "net/http/"
	}
	return ""
}

func (m *machine) isWhatTheGateRuns(command string) {
	m.t.Helper()
	gate, err := os.ReadFile(filepath.Join(m.root, ".ci", "run"))
	if err != nil {
		m.t.Fatal(err)
	}
	if !strings.Contains(string(gate), "\n"+command+"\n") {
		m.t.Errorf("the gate does not run %q", command)
	}
}
