package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quorate/node/kv"
)

func TestScanTakesRegularFilesOnly(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "a"), "1")
	write(t, filepath.Join(root, "dir", "b"), "22")
	write(t, filepath.Join(root, "dir", "empty"), "")
	if err := os.Mkdir(filepath.Join(root, "nothing"), 0o700); err != nil {
		t.Fatal(err)
	}
	symlink(t, filepath.Join(root, "a"), filepath.Join(root, "link"))
	symlink(t, root, filepath.Join(root, "dir", "loop"))

	plan, err := scanImport(root, "p/")
	if err != nil {
		t.Fatal(err)
	}
	var keys, skipped []string
	for _, f := range plan.files {
		keys = append(keys, f.key)
	}
	for _, s := range plan.skipped {
		skipped = append(skipped, s.path())
	}
	if want := []string{"p/a", "p/dir/b", "p/dir/empty"}; !slices.Equal(keys, want) {
		t.Errorf("keys %q, want %q", keys, want)
	}
	if want := []string{"dir/loop", "link"}; !slices.Equal(skipped, want) {
		t.Errorf("skipped %q, want %q", skipped, want)
	}
	if plan.bytes != 3 || len(plan.failed)+len(plan.refused) > 0 {
		t.Errorf("plan has %d bytes, failed %v, refused %v", plan.bytes, plan.failed, plan.refused)
	}
}

func TestScanFollowsALinkThatTheUserNamed(t *testing.T) {
	parent := t.TempDir()
	write(t, filepath.Join(parent, "real", "a"), "1")
	symlink(t, "real", filepath.Join(parent, "link"))
	plan, err := scanImport(filepath.Join(parent, "link"), "")
	if err != nil || len(plan.files) != 1 {
		t.Errorf("plan %v, %v; want the file in the directory behind the link", plan.files, err)
	}
}

func TestScanRefusesPathsTooLongForAKey(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "name"), "1")
	fits, err := scanImport(root, strings.Repeat("p", kv.MaxKeyBytes-len("name")))
	if err != nil || len(fits.files) != 1 {
		t.Errorf("a key of just the largest size is not taken: %+v, %v", fits, err)
	}
	tooLong, err := scanImport(root, strings.Repeat("p", kv.MaxKeyBytes-len("name")+1))
	if err != nil || len(tooLong.files) != 0 || len(tooLong.refused) != 1 {
		t.Errorf("a key that is too long: %+v, %v; want it refused", tooLong, err)
	}
}

func TestScanOfWhatIsNoDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	write(t, file, "")
	for _, path := range []string{file, file + "-missing"} {
		if _, err := scanImport(path, ""); exitStatus(t.Context(), err) != statusUsage {
			t.Errorf("scan of %s: %v; want an error of usage", path, err)
		}
	}
}

func TestFileOverTheLimitIsNotRead(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "f"), "12345678")
	plan, err := scanImport(root, "")
	if err != nil {
		t.Fatal(err)
	}
	file := plan.files[0]
	for limit, want := range map[int]bool{7: true, 8: false, 9: false} {
		content, tooLarge, err := plan.read(file, limit)
		if err != nil || tooLarge != want || !want && string(content) != "12345678" {
			t.Errorf("limit %d: %q, too large %t, %v", limit, content, tooLarge, err)
		}
	}
	// It grew after it was listed.
	write(t, filepath.Join(root, "f"), "1234567890")
	if _, tooLarge, err := plan.read(file, 9); err != nil || !tooLarge {
		t.Errorf("a file that grew over the limit: too large %t, %v", tooLarge, err)
	}
	// It shrank.
	write(t, filepath.Join(root, "f"), "123")
	if content, tooLarge, err := plan.read(file, 9); err != nil || tooLarge || string(content) != "123" {
		t.Errorf("a file that shrank: %q, too large %t, %v", content, tooLarge, err)
	}
	if err := os.Remove(filepath.Join(root, "f")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := plan.read(file, 9); err == nil {
		t.Error("a file that is gone was read")
	}
}
