// Package sources has the go command know what a test depends on that builds something itself.
package sources

import (
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Look reads the module's directories. The go command keeps a test's result until something changes that the test imports or reads: of what a test
// builds it would not know.
func Look(tb testing.TB) {
	tb.Helper()
	module, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		tb.Fatalf("go env: %v", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(module)))
	if err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), ".") {
			return filepath.SkipDir
		}
		return err
	}); err != nil {
		tb.Fatalf("look at the sources: %v", err)
	}
}
