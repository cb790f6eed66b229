// Package realdata puts real data through a cluster of real processes.
package realdata

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node/kv"
	"quorate/test/procs"
)

// TestStandardLibraryThroughAKilledLeader imports the source tree of the Go standard library, a key a file, kills the
// leader's process in the middle, and exports every file again, byte for byte. With -short, only the tree's largest package.
func TestStandardLibraryThroughAKilledLeader(t *testing.T) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(out)), "src")
	if testing.Short() {
		source = filepath.Join(source, "cmd", "compile")
	}
	binary := procs.Build(t)
	c := procs.NewCluster(t, binary, "", "n1", "n2", "n3")
	files := regularFiles(t, source)
	limit := valueLimit(t, c.Conn, c.Name)

	importer := procs.Start(t, "import", binary, "import", source, "--cluster", c.Name, "--nats", c.URL, "--timeout", "60s")
	waitForKeys(t, c, len(files)/4)
	leader := c.Leader(20 * time.Second) // asked now: it may have moved
	c.Procs[leader].Kill()
	if importer.Output() != "" && strings.Contains(importer.Output(), "panic") {
		t.Fatal(importer.Output())
	}
	select {
	case <-importer.Done():
		t.Fatalf("the import had ended before the leader was killed:\n%s", importer.Output())
	default:
	}
	c.Start(leader)
	select {
	case <-importer.Done():
	case <-time.After(3 * time.Minute):
		t.Fatalf("import did not end:\n%s", importer.Output())
	}
	tooLarge := map[string]bool{}
	for name, size := range files {
		if size > limit {
			tooLarge[name] = true
			if !strings.Contains(importer.Output(), name) {
				t.Errorf("%s has %d bytes, over the limit of %d, and the import does not name it", name, size, limit)
			}
		}
	}
	if len(tooLarge) == 0 && importer.Err() != nil {
		t.Fatalf("import: %v\n%s", importer.Err(), importer.Output())
	}

	target := t.TempDir()
	export := exec.Command(binary, "export", target, "--cluster", c.Name, "--nats", c.URL, "--timeout", "60s")
	if out, err := export.CombinedOutput(); err != nil {
		t.Fatalf("export: %v\n%s", err, out)
	}
	exported := regularFiles(t, target)
	for name := range files {
		if tooLarge[name] {
			continue
		}
		want, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(target, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s came back different (%v)", name, err)
		}
	}
	if len(exported) != len(files)-len(tooLarge) {
		t.Fatalf("exported %d files, want %d", len(exported), len(files)-len(tooLarge))
	}
	t.Logf("%d files imported through a killed leader and exported unchanged; %d over the limit of %d bytes, by name", len(exported), len(tooLarge), limit)
}

func regularFiles(t *testing.T, root string) map[string]int {
	t.Helper()
	files := map[string]int{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		files[filepath.ToSlash(name)] = int(info.Size())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no files below %s", root)
	}
	return files
}

func valueLimit(t *testing.T, conn *nats.Conn, cluster string) int {
	t.Helper()
	client, err := kv.NewClient(conn, cluster)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	limit, err := client.MaxValueBytes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return limit
}

// waitForKeys waits until there are so many keys.
func waitForKeys(t *testing.T, c *procs.Cluster, n int) {
	t.Helper()
	client, err := kv.NewClient(c.Conn, c.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		keys := 0
		for _, err := range client.List(ctx, "", true) {
			if err != nil {
				t.Fatalf("list: %v", err)
			}
			keys++
		}
		if keys >= n {
			return
		}
	}
}
