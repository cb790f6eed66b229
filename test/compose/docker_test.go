package compose

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nuid"
)

// patience is how long a test waits for what should take seconds.
const patience = 3 * time.Minute

// running is a copy of compose/ that is run under a name of its own, on a network that leads nowhere.
type running struct {
	t     *testing.T
	name  string
	dir   string // what compose/ is copied into
	env   []string
	tool  string   // Compose
	files []string // of the project
}

// newRunning copies compose/ and prepares to run these files of it, with a NATS server that it builds. What is made is removed with the test.
func newRunning(t *testing.T, files ...string) *running {
	t.Helper()
	r := &running{t: t, name: "quorate-test-" + strings.ToLower(nuid.Next()), dir: t.TempDir(), tool: "docker-compose", files: files}
	if _, err := exec.LookPath(r.tool); err != nil {
		r.tool = "docker compose"
	}
	if err := os.CopyFS(filepath.Join(r.dir, "compose"), os.DirFS(filepath.Join(root, "compose"))); err != nil {
		t.Fatal(err)
	}
	r.append("cluster.yml", "\nnetworks:\n  default:\n    internal: true\n")
	r.env = append(os.Environ(), "COMPOSE_PROJECT_NAME="+r.name)
	for _, p := range composeFiles(t) {
		for _, s := range p.Services {
			for _, port := range s.Ports { // any that is free
				r.env = append(r.env, regexp.MustCompile(`[A-Z0-9_]+_PORT`).FindString(port)+"=")
			}
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := r.compose("logs --no-color --tail 50")
			t.Log(logs)
		}
		if out, err := r.compose("down --volumes --remove-orphans"); err != nil {
			t.Errorf("not all was removed: %v\n%s", err, out)
		}
		if out, err := r.try(r.dir, "docker image ls --format '{{.Repository}}:{{.Tag}}' "+r.name+" | xargs --no-run-if-empty docker rmi"); err != nil {
			t.Errorf("images are left: %v\n%s", err, out)
		}
	})
	r.names("QUORATE_IMAGE")
	nats := r.names("NATS_IMAGE")
	r.goBuild("github.com/nats-io/nats-server/v2")
	r.must("docker build --network none --quiet --tag " + nats + " --file compose/image/nats.Dockerfile compose/image")
	return r
}

// append adds to a file of the copy.
func (r *running) append(name, text string) {
	r.t.Helper()
	f, err := os.OpenFile(filepath.Join(r.dir, "compose", name), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if closeErr := f.Close(); err != nil || closeErr != nil {
		r.t.Fatal(err, closeErr)
	}
}

// names has a variable name an image of this test's.
func (r *running) names(variable string) string {
	tag := r.name + ":" + strings.ToLower(strings.TrimSuffix(variable, "_IMAGE"))
	r.env = append(r.env, variable+"="+tag)
	return tag
}

// goBuild builds static programs for images.
func (r *running) goBuild(packages string) {
	r.t.Helper()
	if out, err := r.try(root, "CGO_ENABLED=0 go build -o "+filepath.Join(r.dir, "compose", "image")+"/ "+packages); err != nil {
		r.t.Fatalf("%v\n%s", err, out)
	}
}

// try runs a shell's line, also when the test is over.
func (r *running) try(dir, line string) (string, error) {
	const most = 30 * time.Minute // in that a large program is built on a slow machine
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.t.Context()), most)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-e", "-c", line)
	cmd.Dir, cmd.Env = dir, r.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s", line, err, stderr.String())
	}
	return stdout.String(), nil
}

func (r *running) must(line string) string {
	r.t.Helper()
	out, err := r.try(r.dir, line)
	if err != nil {
		r.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

func (r *running) compose(args string) (string, error) {
	return r.try(r.dir, r.tool+" -f compose/"+strings.Join(r.files, " -f compose/")+" "+args)
}

func (r *running) mustCompose(args string) string {
	r.t.Helper()
	out, err := r.compose(args)
	if err != nil {
		r.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// readme runs the README's blocks that have a text, line by line, and returns what they printed.
func (r *running) readme(with string) string {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		r.t.Fatal(err)
	}
	var printed strings.Builder
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		if !strings.Contains(block[1], with) {
			continue
		}
		for line := range strings.Lines(block[1]) {
			line = strings.TrimSpace(line)
			if packages, ok := strings.CutPrefix(line, "CGO_ENABLED=0 go build -o compose/image/ "); ok {
				r.goBuild(packages)
				continue
			}
			printed.WriteString(r.must(strings.Replace(line, "docker-compose", r.tool, 1)))
		}
	}
	if printed.Len() == 0 {
		r.t.Fatalf("the README has no block with %q that prints anything", with)
	}
	return printed.String()
}

// container is the id of a service's container.
func (r *running) container(service string) string {
	r.t.Helper()
	id := strings.TrimSpace(r.must("docker ps --all --quiet --filter label=com.docker.compose.project=" + r.name + " --filter label=com.docker.compose.service=" + service))
	if id == "" || strings.Contains(id, "\n") {
		r.t.Fatalf("not one container of %s: %q", service, id)
	}
	return id
}

// quorate runs a command inside of a node's container.
func (r *running) quorate(node, args string) (string, error) {
	return r.try(r.dir, "docker exec "+r.container(node)+" quorate "+args)
}

func (r *running) mustQuorate(node, args string) string {
	r.t.Helper()
	out, err := r.quorate(node, args)
	if err != nil {
		r.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// waitHealthy waits until the health checks of all nodes pass.
func (r *running) waitHealthy() {
	r.t.Helper()
	for _, service := range nodes {
		r.eventually(service+" is healthy", func() bool {
			return strings.TrimSpace(r.must("docker inspect --format '{{.State.Health.Status}}' "+r.container(service))) == "healthy"
		})
	}
}

// eventually waits for a condition. If it does not come, that fails the test, after what the others say.
func (r *running) eventually(what string, condition func() bool, otherwise ...func()) {
	r.t.Helper()
	eventually(r.t, what, patience, condition, otherwise...)
}
