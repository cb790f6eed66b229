package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestKeyBecomesPathBelowTheDirectory(t *testing.T) {
	for _, key := range []string{"a", "a/b/c", "a b", "..a", "a..", ".hidden", "...", "a/.b/c..", "\xff\xfe", "ключ/值", "-", "a\nb", "a\\b"} {
		path, err := newExportPaths("", false).take(key)
		if err != nil || path != key {
			t.Errorf("take(%q) = %q, %v; want the key itself", key, path, err)
		}
	}
}

func TestKeyThatCannotBeAFileIsRefused(t *testing.T) {
	for key, reason := range map[string]string{
		"":                       "no file name",
		"/":                      "absolute",
		"/etc/passwd":            "absolute",
		"//a":                    "absolute",
		"..":                     "leads elsewhere",
		".":                      "leads elsewhere",
		"../a":                   "leads elsewhere",
		"a/..":                   "leads elsewhere",
		"a/../../b":              "leads elsewhere",
		"a/./b":                  "leads elsewhere",
		"a/":                     "ends with a slash",
		"a//b":                   "empty part",
		"a\x00b":                 "NUL",
		"a\x00/../b":             "NUL",
		strings.Repeat("x", 256): "256 bytes",
		exportTemp + "x/a":       "unfinished",
		"a/" + exportTemp + "x":  "unfinished",
	} {
		path, err := newExportPaths("", false).take(key)
		if err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("take(%q) = %q, %v; want an error with %q", key, path, err, reason)
		}
	}
}

func TestPrefixIsLeftOutOfThePath(t *testing.T) {
	p := newExportPaths("app/", false)
	if path, err := p.take("app/x/y"); err != nil || path != "x/y" {
		t.Errorf("take = %q, %v; want x/y", path, err)
	}
	for _, key := range []string{"app/", "app//etc/passwd", "app/../x", "other"} {
		if path, err := p.take(key); err == nil {
			t.Errorf("take(%q) = %q, want an error", key, path)
		}
	}
}

func TestKeyBelowAnotherKeyIsRefused(t *testing.T) {
	refused := take(t, false, "a", "a!", "a/b", "a/c/d", "b/c", "b/c/d", "b/d")
	if want := []string{"a/b", "a/c/d", "b/c/d"}; !slices.Equal(refused, want) {
		t.Errorf("refused %q, want %q", refused, want)
	}
}

func TestKeysThatDifferByCaseOnly(t *testing.T) {
	keys := []string{"A", "B/x", "a", "b", "b/y", "É", "é"}
	if refused, want := take(t, false, keys...), []string{"b/y"}; !slices.Equal(refused, want) {
		t.Errorf("refused %q where names that differ by case are different, want %q", refused, want)
	}
	// B/x makes a directory, so b cannot be a file; b/y goes into it.
	if refused, want := take(t, true, keys...), []string{"a", "b", "é"}; !slices.Equal(refused, want) {
		t.Errorf("refused %q where names that differ by case are the same, want %q", refused, want)
	}
}

func take(t *testing.T, folds bool, keys ...string) (refused []string) {
	t.Helper()
	if !slices.IsSorted(keys) {
		t.Fatal("the store lists keys in ascending order")
	}
	p := newExportPaths("", folds)
	for _, key := range keys {
		if _, err := p.take(key); err != nil {
			refused = append(refused, key)
		}
	}
	return refused
}

// Whatever the keys are: a path stays below the directory, is that of one key only, and no path is another's directory.
func TestPathsNeverEscapeNorConflict(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringOfN(rapid.RuneFrom([]rune("aAbB./\x00\\: ")), 1, 8, -1)
		keys := rapid.SliceOfN(key, 1, 40).Draw(t, "keys")
		folds := rapid.Bool().Draw(t, "folds")
		slices.Sort(keys)
		keys = slices.Compact(keys)
		p := newExportPaths("", folds)
		taken := map[string]string{}
		for _, key := range keys {
			path, err := p.take(key)
			if err != nil {
				continue
			}
			if path != key || !filepath.IsLocal(filepath.FromSlash(path)) || filepath.ToSlash(filepath.Clean(path)) != path {
				t.Fatalf("key %q: path %q", key, path)
			}
			if other, ok := taken[p.fold(path)]; ok {
				t.Fatalf("keys %q and %q are the same file", other, key)
			}
			taken[p.fold(path)] = key
		}
		for path, key := range taken {
			for end := range segmentEnds(path) {
				if other, ok := taken[path[:end]]; ok {
					t.Fatalf("key %q is a file, and a directory of %q", other, key)
				}
			}
		}
	})
}
