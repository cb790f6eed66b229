package objectstore

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/storage"
)

func saved(t testing.TB, blobs Blobs, ref storage.SnapshotRef) []byte {
	t.Helper()
	var file bytes.Buffer
	if err := Save(t.Context(), blobs, ref, &file, once); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func openBackup(t testing.TB, content []byte) (*File, error) {
	t.Helper()
	files := vfs.NewMem()
	out, err := files.Create("/backup", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = out.Write(bytes.Clone(content)) // vfs spoils what it is given, in some builds
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(files, "/backup")
	if err == nil {
		t.Cleanup(func() { _ = f.Close() })
	}
	return f, err
}

func TestBackupFileRoundTrip(t *testing.T) {
	eachStore(t, func(t *testing.T, blobs Blobs) {
		content := randomBytes(1, 200<<10)
		ref, _ := upload(t, blobs, 10, content)
		file := saved(t, blobs, ref)
		if again := saved(t, blobs, ref); !bytes.Equal(file, again) {
			t.Error("the same snapshot makes another file")
		}
		to := newTestDirectory()
		got, err := Load(t.Context(), bytes.NewReader(file), to)
		if err != nil || got != ref {
			t.Fatalf("got %+v, %v", got, err)
		}
		if got := readSnapshot(t, to, ref); !bytes.Equal(got, content) {
			t.Fatal("not the same after Load")
		}
		f, err := openBackup(t, file)
		if err != nil || f.Ref() != ref {
			t.Fatal(err)
		}
		if err := Verify(t.Context(), f, ref, once); err != nil {
			t.Fatal(err)
		}
		to = newTestDirectory()
		if err := Fetch(t.Context(), f, to, ref, FetchOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := readSnapshot(t, f, ref); !bytes.Equal(got, content) {
			t.Fatal("not the same in place")
		}
		if newest, err := Newest(t.Context(), f); err != nil || newest != ref {
			t.Fatalf("got %v, %v", newest, err)
		}
		if err := f.Put(t.Context(), "a", 0, nil); !errors.Is(err, ErrReadOnly) {
			t.Fatalf("put: %v", err)
		}
	})
}

// tryBackup loads a file and opens and verifies it, and says whether both took it.
func tryBackup(t testing.TB, file []byte) error {
	t.Helper()
	to := newTestDirectory()
	_, loadErr := Load(t.Context(), bytes.NewReader(file), to)
	if loadErr != nil {
		for name := range names(t, to) {
			if isManifest(name) {
				t.Errorf("after %v, the directory looks complete", loadErr)
			}
		}
	}
	f, err := openBackup(t, file)
	if err == nil {
		err = Verify(t.Context(), f, f.Ref(), once)
	}
	var damaged *DamagedError
	for _, err := range []error{loadErr, err} {
		if err != nil && !errors.As(err, &damaged) && !errors.Is(err, ErrNotBackup) {
			t.Errorf("not said clearly: %v", err)
		}
	}
	if loadErr != nil && err == nil || loadErr == nil && err != nil {
		return fmt.Errorf("load says: %v; verify says: %w", loadErr, err)
	}
	return loadErr
}

func TestDamagedBackupFile(t *testing.T) {
	d := newTestDirectory()
	ref, _ := upload(t, d, 10, randomBytes(1, 20<<10))
	file := saved(t, d, ref)
	end := len(file) - 1024 // the mark of the end, which has no content
	for n := 0; n < end; n += 97 {
		if err := tryBackup(t, file[:n]); err == nil && end-n > 512 {
			t.Fatalf("truncated to %d of %d bytes: taken", n, len(file))
		}
	}
	for at := 0; at < len(file); at += 41 { // what is taken was verified; what is not gets a clear error
		bad := bytes.Clone(file)
		bad[at] ^= 4
		_ = tryBackup(t, bad)
	}
	m := openSnapshot(t, d, ref)
	content := mustGet(t, d, ref.Name)
	victims := [][]byte{content, []byte(m.Unique()[1].Name())}
	for _, p := range m.Unique() {
		victims = append(victims, mustGet(t, d, p.Name()))
	}
	for i, v := range victims {
		at := bytes.Index(file, v)
		if at < 0 {
			t.Fatal("not in the file")
		}
		for _, offset := range []int{0, len(v) / 2, len(v) - 1} {
			bad := bytes.Clone(file)
			bad[at+offset] ^= 1
			if err := tryBackup(t, bad); err == nil {
				t.Errorf("bit flipped in %d at %d: taken", i, offset)
			}
		}
	}
	for name, foreign := range map[string][]byte{
		"empty": {}, "text": []byte("this is no backup"), "noise": randomBytes(1, 10000), "zeros": make([]byte, 5000),
	} {
		if _, err := Load(t.Context(), bytes.NewReader(foreign), newTestDirectory()); !errors.Is(err, ErrNotBackup) {
			t.Errorf("load %s: %v", name, err)
		}
		if _, err := openBackup(t, foreign); !errors.Is(err, ErrNotBackup) {
			t.Errorf("open %s: %v", name, err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	d := newTestDirectory()
	ref, _ := uploadWith(f, d, 10, randomBytes(1, 900), UploadOptions{Sizes: PartSizes{Min: 100, Average: 200, Max: 400}})
	file := saved(f, d, ref)
	f.Add(file)
	f.Add(file[:len(file)/2])
	f.Add(flipped(file))
	f.Add([]byte("no backup"))
	f.Fuzz(func(t *testing.T, b []byte) {
		to := newTestDirectory()
		ref, err := Load(t.Context(), bytes.NewReader(b), to)
		if err == nil {
			if err := Verify(t.Context(), to, ref, once); err != nil && !errors.As(err, new(*DamagedError)) {
				t.Fatal(err)
			}
			if _, err := Open(t.Context(), to, ref); err != nil {
				t.Fatal(err)
			}
		}
		if file, err := openBackup(t, b); err == nil {
			_ = Verify(t.Context(), file, file.Ref(), once)
		}
	})
}
