package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quorate/node/kv"
)

func scan(t *testing.T, dir, prefix string) (importPlan, error) {
	t.Helper()
	plan, err := scanImport(dir, prefix)
	if err == nil {
		t.Cleanup(func() { _ = plan.root.Close() })
	}
	return plan, err
}

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

	plan, err := scan(t, root, "p/")
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
	plan, err := scan(t, filepath.Join(parent, "link"), "")
	if err != nil || len(plan.files) != 1 {
		t.Errorf("plan %v, %v; want the file in the directory behind the link", plan.files, err)
	}
}

func TestScanRefusesPathsTooLongForAKey(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "name"), "1")
	fits, err := scan(t, root, strings.Repeat("p", kv.MaxKeyBytes-len("name")))
	if err != nil || len(fits.files) != 1 {
		t.Errorf("a key of just the largest size is not taken: %+v, %v", fits, err)
	}
	tooLong, err := scan(t, root, strings.Repeat("p", kv.MaxKeyBytes-len("name")+1))
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
	plan, err := scan(t, root, "")
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

// What was listed may be something else when its turn comes, and whoever may write into the directory chooses when.
func TestImportStaysInItsDirectoryWhenFilesChange(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "file"), "secret")
	for _, name := range []string{"above/file", "below/file", "dir", "fifo", "link", "sibling", "stays"} {
		write(t, filepath.Join(root, name), name)
	}
	plan, err := scan(t, root, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"above", "below", "dir", "fifo", "link", "sibling"} {
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(root, "dir", "file"), "another")
	symlink(t, outside, filepath.Join(root, "above"))
	symlink(t, "dir", filepath.Join(root, "below"))
	symlink(t, filepath.Join(outside, "file"), filepath.Join(root, "link"))
	symlink(t, "stays", filepath.Join(root, "sibling"))
	mkfifo(t, filepath.Join(root, "fifo"))
	type outcome struct {
		content string
		err     error
	}
	for _, file := range plan.files {
		done := make(chan outcome, 1)
		go func() {
			content, _, err := plan.read(file, 1000)
			done <- outcome{string(content), err}
		}()
		select {
		case o := <-done:
			var other *changedError
			if stays := file.path == "stays"; stays && (o.err != nil || o.content != "stays") || !stays && !errors.As(o.err, &other) {
				t.Errorf("%s: %q, %v", file.path, o.content, o.err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: read does not return", file.path)
		}
	}
}
