// Package conformance holds the list of behaviours that a complete Raft node has, and checks that each names tests that exist.
package conformance

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// behaviours is how many the list must have.
const behaviours = 47

func TestEachBehaviourIsShownByTestsThatExist(t *testing.T) {
	tests := testNames(t)
	file, err := os.Open("behaviours.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	next := 1
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		parts := strings.Split(line, "|")
		if len(parts) != 3 {
			t.Errorf("%q: want number | words | tests", line)
			continue
		}
		if number, err := strconv.Atoi(strings.TrimSpace(parts[0])); err != nil || number != next {
			t.Errorf("%q: want number %d", line, next)
		}
		next++
		names := strings.Fields(parts[2])
		if len(names) == 0 {
			t.Errorf("%q: no test", line)
		}
		for _, name := range names {
			if story, ok := strings.CutPrefix(name, "TestScenarios/"); ok {
				if _, err := os.Stat(filepath.Join(root, "node", "raft", "testdata", story+".txt")); err != nil {
					t.Errorf("behaviour %d: %v", next-1, err)
				}
			} else if !tests[name] {
				t.Errorf("behaviour %d: there is no test %s", next-1, name)
			}
		}
	}
	if next != behaviours+1 {
		t.Errorf("%d behaviours, want %d", next-1, behaviours)
	}
}

// testNames returns the names of all tests of the project.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				names[f.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
