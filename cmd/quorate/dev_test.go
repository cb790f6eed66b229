package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"quorate/node/kv"
)

// devProcess starts `quorate dev` on a free port and waits until it is ready. The client commands of the test find it by themselves.
func devProcess(t *testing.T, args ...string) (*process, shownDev) {
	t.Helper()
	p := start(t, append([]string{"dev", "--port", "0", "--output", "json"}, args...)...)
	ready := readJSON[shownDev](t, p.line())
	t.Setenv("NATS_URL", ready.URL)
	t.Setenv("QUORATE_CLUSTER", ready.Cluster)
	return p, ready
}

func TestDevClusterServesAndComesBackWithItsData(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	p, ready := devProcess(t, "--dir", dir)
	if ready.Cluster != "dev" || len(ready.Nodes) != 3 || !slices.Contains(ready.Nodes, ready.Leader) || ready.Dir != dir {
		t.Fatalf("ready: %+v", ready)
	}
	first := readJSON[written](t, must(t, "", "put", "greeting", "hello", "-o", "json"))
	if got := must(t, "", "get", "greeting"); got != "hello" {
		t.Fatalf("got %q", got)
	}

	p.signal(os.Interrupt)
	if status := p.ended(); status != statusDone {
		t.Fatalf("exit status %d after Ctrl-C", status)
	}
	wantStatus(t, statusUnavailable, "cannot be reached", "get", "greeting")

	p, ready = devProcess(t, "--dir", dir)
	got := readJSON[shownEntry](t, must(t, "", "get", "greeting", "-o", "json"))
	if got.Value == nil || *got.Value != "hello" || got.Revision != first.Revision {
		t.Fatalf("after the restart: %+v, want hello at revision %d", got, first.Revision)
	}
	if again := readJSON[written](t, must(t, "", "put", "greeting", "again", "-o", "json")); again.Revision <= first.Revision {
		t.Fatalf("revision %d after %d", again.Revision, first.Revision)
	}

	// Without a chance to stop in good order, too.
	p.signal(os.Kill)
	p.ended()
	p, _ = devProcess(t, "--dir", dir)
	if out := must(t, "", "get", "greeting"); out != "again" {
		t.Fatalf("after kill -9: %q", out)
	}

	// The directory is held, and keeps its number of nodes.
	wantStatus(t, statusFailed, "in use", "dev", "--port", "0", "--dir", dir)
	p.stop()
	wantStatus(t, statusUsage, "3 nodes", "dev", "--port", "0", "--dir", dir, "--nodes", "5")
	wantStatus(t, statusUsage, "cluster dev", "dev", "--port", "0", "--dir", dir, "--cluster", "other")
}

func TestDevSaysWhatToTryNext(t *testing.T) {
	p := start(t, "dev", "--ephemeral", "--port", "0", "--cluster", "test", "--nodes", "1")
	var text []string
	for len(text) == 0 || !strings.Contains(text[len(text)-1], "Ctrl-C") {
		text = append(text, p.line())
	}
	all := strings.Join(text, "\n")
	for _, want := range []string{"leader  n1", "nats://127.0.0.1:", "removed at the end", "put greeting hello --nats nats://127.0.0.1:", "--cluster test"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	// The commands work as they are printed.
	for _, line := range text {
		if _, command, ok := strings.Cut(line, "./cmd/quorate "); ok {
			must(t, "", strings.Fields(command)...)
		}
	}
	var dir string
	for _, line := range text {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "data" {
			dir = fields[1]
		}
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("directory of the data: %v", err)
	}
	p.stop()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the ephemeral directory is still there: %v", err)
	}
}

func TestDevOnAPortInUse(t *testing.T) {
	u, err := url.Parse(startNATS(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	wantStatus(t, statusFailed, "--port", "dev", "--dir", dir, "--port", u.Port())
	wantStatus(t, statusFailed, u.Port(), "dev", "--dir", dir, "--port", u.Port())
	if _, err := readDevLayout(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the start that failed left a layout behind: %v", err)
	}
	// The directory is free and whole again.
	p, _ := devProcess(t, "--dir", dir)
	p.stop()
}

func TestClientCommands(t *testing.T) {
	p, ready := devProcess(t, "--ephemeral")

	// put, get, del, and conditions
	revision := readJSON[written](t, must(t, "", "put", "k", "one", "-o", "json")).Revision
	if out := must(t, "", "get", "k"); out != "one" {
		t.Errorf("get: %q", out)
	}
	wantStatus(t, statusFalse, "not found", "get", "missing")
	wantStatus(t, statusFalse, "not found", "del", "missing")
	wantStatus(t, statusFalse, "condition", "put", "k", "two", "--if-revision", "0")
	wantStatus(t, statusFalse, "condition", "del", "k", "--if-revision", fmt.Sprint(revision+1))
	must(t, "", "put", "k", "two", "--if-revision", fmt.Sprint(revision))
	must(t, "", "put", "new", "x", "--if-revision", "0")
	must(t, "", "del", "new")
	wantStatus(t, statusFalse, "not found", "get", "new")
	wantStatus(t, statusUsage, "key", "put", strings.Repeat("k", kv.MaxKeyBytes+1), "v")
	wantStatus(t, statusUsage, "key", "put", "", "v")
	wantStatus(t, statusUnavailable, "other", "get", "k", "--cluster", "other", "--timeout", "500ms")

	// a value of any bytes, from standard input
	value := make([]byte, 100_000)
	if _, err := rand.Read(value); err != nil {
		t.Fatal(err)
	}
	must(t, string(value), "put", "dir/bytes", "-")
	if out := must(t, "", "get", "dir/bytes"); out != string(value) {
		t.Errorf("%d bytes came back as %d, or differ", len(value), len(out))
	}
	if shown := readJSON[shownEntry](t, must(t, "", "get", "dir/bytes", "-o", "json")); !bytes.Equal(shown.ValueBytes, value) {
		t.Error("bytes differ in JSON")
	}
	must(t, "", "put", "empty", "-")
	must(t, "traced from there", "trace", "put", "traced", "-")
	if got := must(t, "", "get", "traced"); got != "traced from there" {
		t.Errorf("trace put of standard input stored %q", got)
	}
	if out := must(t, "", "get", "empty"); out != "" {
		t.Errorf("empty value: %q", out)
	}

	// ls
	must(t, "", "put", "dir/a b\nc", "v")
	if out := must(t, "", "ls", "dir/"); out != "\"dir/a b\\nc\"\ndir/bytes\n" {
		t.Errorf("ls dir/: %q", out)
	}
	if out := must(t, "", "ls", "none/"); out != "" {
		t.Errorf("ls none/: %q", out)
	}
	if out := must(t, "", "ls", "k", "--long"); !strings.Contains(out, "  k\n") {
		t.Errorf("ls --long: %q", out)
	}
	if shown := readJSON[shownEntry](t, must(t, "", "ls", "k", "--values", "-o", "json")); *shown.Key != "k" || *shown.Value != "two" {
		t.Errorf("ls --values: %+v", shown)
	}
	if out := must(t, "", "ls", "k", "-o", "json"); strings.Contains(out, "value") {
		t.Errorf("ls without --values: %s", out)
	}

	// status, leader
	if out := strings.TrimSpace(must(t, "", "leader", "--wait")); !slices.Contains([]string{"n1", "n2", "n3"}, out) {
		t.Errorf("leader %q", out)
	}
	shown := readJSON[shownCluster](t, must(t, "", "status", "-o", "json"))
	if len(shown.Nodes) != 3 || len(shown.Unreachable) != 0 || shown.Cluster != ready.Cluster {
		t.Errorf("status: %+v", shown)
	}
	if out := must(t, "", "status", "--node", "n2"); strings.Count(out, "nats://") != 1 || !strings.Contains(out, "\nn2 ") {
		t.Errorf("status of n2:\n%s", out)
	}
	wantStatus(t, statusUnavailable, "n9", "status", "--node", "n9")

	// bench
	result := readJSON[benchResult](t, must(t, "", "bench", "--ops", "mix", "--clients", "16", "--keys", "100", "--size", "100",
		"--duration", "500ms", "--warmup", "100ms", "-o", "json"))
	if result.Ops[opsPut].Operations == 0 || result.Ops[opsGet].Operations == 0 || len(result.Errors) != 0 || result.Ops[opsPut].Latency.P50 == 0 {
		t.Errorf("bench: %+v", result)
	}
	if keys := strings.Count(must(t, "", "ls", "bench/"), "\n"); keys != 100 {
		t.Errorf("bench wrote %d keys, want 100", keys)
	}
	p.stop()
}

func TestImportThenExportIsByteIdentical(t *testing.T) {
	p, _ := devProcess(t, "--ephemeral", "--nodes", "1")
	source := t.TempDir()
	files := map[string]string{"empty": "", "a": "1\n", "dir/sub/b": "2", "dir/bytes": "\x00\xff\r\n", "dir/space name": "3", "ключ": "4"}
	for i := range 200 {
		files[fmt.Sprintf("many/%03d", i)] = strings.Repeat("x", i*50)
	}
	for name, content := range files {
		write(t, filepath.Join(source, name), content)
	}
	symlink(t, filepath.Join(source, "a"), filepath.Join(source, "link"))

	imported := readJSON[importSummary](t, must(t, "", "import", source, "--prefix", "p/", "-o", "json"))
	if imported.Files != len(files) || len(imported.Skipped) != 1 || imported.Missing != 0 {
		t.Errorf("import: %+v", imported)
	}
	status, stdout, stderr := quorate(t, nil, "import", source, "--prefix", "p/", "--skip-unchanged", "--progress", "-o", "json")
	if again := readJSON[importSummary](t, stdout); status != statusDone || again.Files != 0 || again.Unchanged != len(files) {
		t.Errorf("second import: exit status %d, %+v", status, again)
	}
	if !strings.Contains(stderr, "importing") {
		t.Errorf("no progress on standard error: %q", stderr)
	}

	target := filepath.Join(t.TempDir(), "new")
	exported := readJSON[exportSummary](t, must(t, "", "export", target, "--prefix", "p/", "-o", "json"))
	if exported.Files != len(files) || exported.Bytes != imported.Bytes {
		t.Errorf("export: %+v", exported)
	}
	for name, content := range files {
		if got := read(t, filepath.Join(target, name)); got != content {
			t.Errorf("%s: %d bytes, want %d, or they differ", name, len(got), len(content))
		}
	}
	if got := names(t, target); !slices.Equal(got, []string{"a", "dir", "empty", "many", "ключ"}) {
		t.Errorf("exported %q", got)
	}
	p.stop()
}

func TestImportNamesFilesOverTheLimit(t *testing.T) {
	p, _ := devProcess(t, "--ephemeral", "--nodes", "1", "--max-payload", "64KiB")
	source := t.TempDir()
	write(t, filepath.Join(source, "dir", "huge.bin"), strings.Repeat("x", 65<<10))
	write(t, filepath.Join(source, "small"), "s")

	status, stdout, stderr := quorate(t, nil, "import", source)
	if status != statusFalse || !strings.Contains(stderr, "dir/huge.bin: not stored: 66560 bytes: the limit is ") || !strings.Contains(stdout, "1 over the limit") {
		t.Errorf("exit status %d\n%s%s", status, stdout, stderr)
	}
	if out := must(t, "", "get", "small"); out != "s" {
		t.Errorf("the other file: %q", out)
	}
	// A single value over the limit is refused with the limit, too.
	status, _, stderr = quorate(t, strings.NewReader(strings.Repeat("x", 65<<10)), "put", "k", "-")
	if status != statusUsage || !strings.Contains(stderr, "limit") {
		t.Errorf("put: exit status %d, want %d\n%s", status, statusUsage, stderr)
	}
	p.stop()
}

func TestNothingIsImportedThatAKilledExportLeft(t *testing.T) {
	p, _ := devProcess(t, "--ephemeral", "--nodes", "1")
	source, copied := t.TempDir(), filepath.Join(t.TempDir(), "copied")
	for i := range 100 {
		write(t, filepath.Join(source, fmt.Sprintf("f%03d", i)), strings.Repeat("x", 200<<10))
	}
	must(t, "", "import", source, "--prefix", "src/", "--timeout", "20s")
	killed := start(t, "export", copied, "--prefix", "src/")
	eventually(t, "file of the export", func() bool { found, _ := filepath.Glob(filepath.Join(copied, "f*")); return len(found) > 0 })
	killed.signal(syscall.SIGKILL)
	killed.ended()
	must(t, "", "import", copied, "--prefix", "again/", "--timeout", "20s")
	if out := must(t, "", "ls", "again/"); strings.Contains(out, exportTemp) {
		t.Errorf("keys that never were:\n%s", out)
	}
	must(t, "", "export", copied, "--prefix", "src/")
	if got, want := names(t, copied), names(t, source); !slices.Equal(got, want) {
		t.Errorf("after the next export there is %q", got)
	}
	p.stop()
}

func TestExportRefusesKeysThatAreNoFiles(t *testing.T) {
	p, _ := devProcess(t, "--ephemeral", "--nodes", "1")
	parent := t.TempDir()
	target := filepath.Join(parent, "target")
	refused := []string{"../escape", "/absolute", "a/../../escape", "a//b", "dir/", "..", "file/below"}
	for _, key := range append([]string{"a/ok", "file"}, refused...) {
		must(t, "", "put", key, "content of "+key)
	}
	status, stdout, stderr := quorate(t, nil, "export", target, "-o", "json")
	summary := readJSON[exportSummary](t, stdout)
	if status != statusFalse || summary.Files != 2 || len(summary.Refused) != len(refused) {
		t.Errorf("exit status %d: %s", status, stdout)
	}
	for _, key := range refused {
		if !strings.Contains(stderr, key+": not written: ") {
			t.Errorf("%s is not named in\n%s", key, stderr)
		}
	}
	if got := read(t, filepath.Join(target, "file")); got != "content of file" {
		t.Errorf("file has %q", got)
	}
	if got := names(t, parent); !slices.Equal(got, []string{"target"}) {
		t.Errorf("outside of the directory there is %q", got)
	}
	if got := names(t, target); !slices.Equal(got, []string{"a", "file"}) {
		t.Errorf("in the directory there is %q", got)
	}
	p.stop()
}
