package objectstore

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/storage"
)

func saved(t testing.TB, blobs Blobs, ref storage.SnapshotRef) []byte {
	t.Helper()
	var file bytes.Buffer
	if err := Save(t.Context(), blobs, ref, &file, SaveOptions{Retry: once}); err != nil {
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
		f, err := openBackup(t, file)
		if err != nil || f.Ref() != ref {
			t.Fatal(err)
		}
		if err := Verify(t.Context(), f, ref, once); err != nil {
			t.Fatal(err)
		}
		to := newTestDirectory()
		if err := Fetch(t.Context(), f, to, ref, FetchOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := readSnapshot(t, to, ref); !bytes.Equal(got, content) {
			t.Fatal("not the same after Fetch")
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

// A backup that is broken off is gone on with: what it has, whole, is not read again, also for another snapshot that has parts in common.
func TestBackupGoesOnFromOneThatWasBrokenOff(t *testing.T) {
	d := newTestDirectory()
	content := randomBytes(1, 100<<10)
	ref, _ := upload(t, d, 10, content)
	next, _ := upload(t, d, 20, append(bytes.Clone(content), randomBytes(2, 5<<10)...))
	parts := openSnapshot(t, d, ref).Unique()
	source := watch(d)
	broken := errors.New("broken")
	source.onGet = func(n int, _ string) error {
		if n > 1+len(parts)/2 { // the manifest, and a half
			return broken
		}
		return nil
	}
	var partial bytes.Buffer
	if err := Save(t.Context(), source, ref, &partial, SaveOptions{Retry: once}); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	bad := bytes.Clone(partial.Bytes())
	bad[bytes.Index(bad, mustGet(t, d, parts[0].Name()))] ^= 1 // a disk's error, meanwhile
	have, err := openBackup(t, bad)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []storage.SnapshotRef{ref, next} {
		source = watch(d)
		var file bytes.Buffer
		var done, total, had int64
		err = Save(t.Context(), source, ref, &file, SaveOptions{Retry: once, Have: have, Progress: func(a, b, c int64) { done, total, had = a, b, c }})
		if err != nil || !bytes.Equal(file.Bytes(), saved(t, d, ref)) {
			t.Fatalf("%v, %d bytes", err, file.Len())
		}
		if source.gets[parts[0].Name()] != 1 || source.gets[parts[1].Name()] != 0 || had == 0 || done != total {
			t.Errorf("%v; %d of %d bytes, %d were here", source.gets, done, total, had)
		}
	}
}

// tryBackup opens a file and verifies it.
func tryBackup(t testing.TB, file []byte) error {
	t.Helper()
	f, err := openBackup(t, file)
	if err == nil {
		err = Verify(t.Context(), f, f.Ref(), once)
	}
	if err != nil && !errors.As(err, new(*DamagedError)) && !errors.Is(err, ErrNotBackup) {
		t.Errorf("not said clearly: %v", err)
	}
	return err
}

// Every byte of a backup counts: header, padding and the end as well as content. A bit flipped anywhere is noticed, and so is a file of any
// other length. (FuzzOpenFile holds for all bytes that a file which is whole is what Save writes.)
func TestEveryByteOfABackupFileIsVerified(t *testing.T) {
	d := newTestDirectory()
	ref, _ := uploadWith(t, d, 10, randomBytes(1, 900), UploadOptions{Sizes: PartSizes{Min: 100, Average: 200, Max: 400}})
	file := saved(t, d, ref)
	if err := tryBackup(t, file); err != nil {
		t.Fatal(err)
	}
	if parts := openSnapshot(t, d, ref).Unique(); len(parts) < 3 || len(file)%tarBlock != 0 || bytes.Count(file, make([]byte, 100)) < 10 {
		t.Fatalf("%d parts in a file of %d bytes: it has not all that a large one has", len(parts), len(file))
	}
	for at := 0; at < len(file); at += 3 {
		bad := bytes.Clone(file)
		bad[at] ^= 1 << (at % 8)
		if tryBackup(t, bad) == nil {
			t.Errorf("bit %d of byte %d of %d flipped: taken", at%8, at, len(file))
		}
	}
	for n := 0; n < len(file); n += 29 {
		if tryBackup(t, file[:n]) == nil {
			t.Errorf("truncated to %d of %d bytes: taken", n, len(file))
		}
	}
	for _, more := range [][]byte{{0}, {1}, make([]byte, tarBlock), make([]byte, 10*tarEnd), file} {
		if tryBackup(t, append(bytes.Clone(file), more...)) == nil {
			t.Errorf("extended by %d bytes: taken", len(more))
		}
	}
}

func TestForeignFileIsNoBackup(t *testing.T) {
	for name, foreign := range map[string][]byte{
		"empty": {}, "text": []byte("this is no backup"), "noise": randomBytes(1, 10000), "zeros": make([]byte, 5000),
	} {
		if _, err := openBackup(t, foreign); !errors.Is(err, ErrNotBackup) {
			t.Errorf("open %s: %v", name, err)
		}
	}
}

// Damage to what stands around the content makes a file that is not whole, but what it has can be read: restore needs no more.
func TestContentOfADamagedBackupFileCanBeRead(t *testing.T) {
	d := newTestDirectory()
	content := randomBytes(1, 20<<10)
	ref, _ := upload(t, d, 10, content)
	file := saved(t, d, ref)
	part := openSnapshot(t, d, ref).Unique()[1]
	header := bytes.Index(file, []byte(part.Name()))
	file[header] ^= 1
	f, err := openBackup(t, file[:len(file)-tarEnd])
	if err != nil {
		t.Fatal(err)
	}
	if got := readSnapshot(t, f, ref); !bytes.Equal(got, content) {
		t.Fatal("not the same")
	}
	if err := Verify(t.Context(), f, ref, once); err == nil {
		t.Fatal("it is taken for whole")
	}
}

func FuzzOpenFile(f *testing.F) {
	d := newTestDirectory()
	ref, _ := uploadWith(f, d, 10, randomBytes(1, 900), UploadOptions{Sizes: PartSizes{Min: 100, Average: 200, Max: 400}})
	file := saved(f, d, ref)
	f.Add(file)
	f.Add(file[:len(file)/2])
	f.Add(flipped(file))
	f.Add([]byte("no backup"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := openBackup(t, b)
		if err != nil {
			return
		}
		if err := Verify(t.Context(), file, file.Ref(), once); err != nil {
			return
		}
		if again := saved(t, file, file.Ref()); !bytes.Equal(again, b) {
			t.Fatal("a file that is whole is another one when it is saved again")
		}
	})
}
