// Package conformance holds two lists, of the behaviours that a complete Raft node has and of bugs that Raft implementations really had. It
// checks that each line names tests that exist, and planted bugs where it must.
package conformance

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"quorate/test/mutants"
)

const root = "../.."

// How many lines the lists must have.
const (
	behaviours = 47
	knownBugs  = 58
)

// byEngineTests are bugs of the protocol which the engine's own tests find when they are planted, in place of the simulator, with the reason.
var byEngineTests = map[int]string{15: "the simulator reads by rounds, not by leases"}

func TestEachBehaviourIsShownByTestsThatExist(t *testing.T) {
	known := namesOf(t)
	for i, line := range lines(t, "behaviours.txt", behaviours) {
		if len(line) != 3 {
			t.Errorf("behaviour %d: want number | words | tests", i+1)
			continue
		}
		if known.count(t, line) == 0 {
			t.Errorf("behaviour %d: no test", i+1)
		}
	}
}

func TestEachKnownBugIsShownByTestsAndPlanted(t *testing.T) {
	known := namesOf(t)
	for i, line := range lines(t, "knownbugs.txt", knownBugs) {
		if len(line) != 4 || line[1] != "P" && line[1] != "R" {
			t.Errorf("bug %d: want number | P or R | words | names", i+1)
			continue
		}
		protocol, reason := line[1] == "P", strings.HasSuffix(line[2], "]")
		if n := known.count(t, line); (n == 0) != (reason && !protocol) {
			t.Errorf("bug %d: %d tests, and a reason why there are none: %t", i+1, n, reason)
		}
		planted := 0
		for _, name := range strings.Fields(line[3]) {
			if words, ok := mutant(name); ok {
				_, bySimulator := mutants.Named(words)
				planted += bySimulator
			}
		}
		if protocol && planted == 0 && byEngineTests[i+1] == "" {
			t.Errorf("bug %d is one of the protocol, but is not planted for the simulator to find", i+1)
		}
	}
}

// lines reads a list: its lines in parts, which must be numbered from 1 to want.
func lines(t *testing.T, file string, want int) (all [][]string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		parts := strings.Split(line, "|")
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		all = append(all, parts)
		if number, err := strconv.Atoi(parts[0]); err != nil || number != len(all) {
			t.Errorf("%s: %q: want number %d", file, line, len(all))
		}
	}
	if len(all) != want {
		t.Errorf("%s has %d lines, want %d", file, len(all), want)
	}
	return all
}

// mutant takes the name of a planted bug apart.
func mutant(name string) (words string, ok bool) {
	words, ok = strings.CutPrefix(name, "mutant/")
	return strings.ReplaceAll(words, "_", " "), ok
}

// names are those of all tests of the project.
type names map[string]bool

// count checks the names at a line's end, and counts the tests among them.
func (n names) count(t *testing.T, line []string) (tests int) {
	t.Helper()
	for _, name := range strings.Fields(line[len(line)-1]) {
		if words, ok := mutant(name); ok {
			if all, _ := mutants.Named(words); all == 0 {
				t.Errorf("line %s: no planted bug's name begins with %q", line[0], words)
			}
			continue
		}
		tests++
		if story, ok := strings.CutPrefix(name, "TestScenarios/"); ok {
			if _, err := os.Stat(filepath.Join(root, "node", "raft", "testdata", story+".txt")); err != nil {
				t.Errorf("line %s: %v", line[0], err)
			}
		} else if !n[name] {
			t.Errorf("line %s: there is no test %s", line[0], name)
		}
	}
	return tests
}

func namesOf(t *testing.T) names {
	t.Helper()
	all := names{}
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
				all[f.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
