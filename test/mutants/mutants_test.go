package mutants

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"quorate/test/sources"
)

var (
	all   = flag.Bool("mutants", os.Getenv("QUORATE_MUTANTS") != "", "plant every mutant, not only the quick ones (also by $QUORATE_MUTANTS)")
	seeds = flag.Int("seeds", 4000, "how many seeds the simulator may take to find a mutant")
)

// TestMutantsAreFound plants each bug and runs the simulator, or the engine's test that it names, which must fail.
func TestMutantsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a test binary for each mutant")
	}
	for _, m := range mutants {
		if !m.quick && !*all {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			binary, sign := "../sim", "\n        seed "
			args := []string{"-test.run", "^TestSeeds$", "-seeds", strconv.Itoa(*seeds)}
			if m.by != simulator { // only that test: others may fail, or panic, for another reason
				binary, sign, args = engineDir, "--- FAIL: "+string(m.by)+" ", []string{"-test.run", "^" + string(m.by) + "$"}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			run := exec.CommandContext(ctx, build(t, m, binary), args...)
			run.Dir = binary
			out, err := run.CombinedOutput()
			if err == nil {
				t.Fatal("it was not found")
			}
			var exit *exec.ExitError
			i := bytes.LastIndex(out, []byte(sign))
			if !errors.As(err, &exit) || i < 0 {
				t.Fatalf("failed otherwise: %v\n%s", err, out)
			}
			t.Logf("found: %s", bytes.TrimSpace(out[i:]))
		})
	}
}

// TestMutantsStillApply guards all patches, also of the mutants that are not planted by default.
func TestMutantsStillApply(t *testing.T) {
	for _, m := range mutants {
		for file, source := range patched(t, m) {
			if original := read(t, file); source == original {
				t.Errorf("%s: changes nothing in %s", m.name, file)
			}
		}
	}
}

const engineDir = "../../node/raft"

// patched returns the mutant's sources by file name.
func patched(t *testing.T, m mutant) map[string]string {
	t.Helper()
	sources := map[string]string{}
	for _, p := range m.patches {
		source, ok := sources[p.file]
		if !ok {
			source = read(t, p.file)
		}
		changed, err := p.apply(source)
		if err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		sources[p.file] = changed
	}
	return sources
}

func read(t *testing.T, file string) string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(engineDir, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(source)
}

// build makes a package's test binary with the bug in it.
func build(t *testing.T, m mutant, pkg string) string {
	t.Helper()
	dir := t.TempDir()
	engine, err := filepath.Abs(engineDir)
	if err != nil {
		t.Fatal(err)
	}
	replace := map[string]string{}
	for file, source := range patched(t, m) {
		path := filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(engine, file)] = path
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "mutant.test")
	sources.Look(t) // also at the tests that must find it
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlayFile, "-o", binary, pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the mutant does not compile: %v\n%s", err, out)
	}
	return binary
}
