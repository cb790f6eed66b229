package objectstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"quorate/node/raft"
)

func TestSnapshotRoundTrip(t *testing.T) {
	eachStore(t, func(t *testing.T, blobs Blobs) {
		content := randomBytes(1, 300<<10)
		ref, stats := upload(t, blobs, 10, content)
		if ref.Bytes != uint64(len(content)) || ref.Last != testMeta(10).Last || stats.Raw != ref.Bytes ||
			stats.PartsSent < 10 || stats.PartsReused != 0 || stats.Sent >= stats.Raw {
			t.Fatalf("got %+v, %+v", ref, stats)
		}
		if got := readSnapshot(t, blobs, ref); !bytes.Equal(got, content) {
			t.Fatalf("got %d bytes, want %d", len(got), len(content))
		}
		m := openSnapshot(t, blobs, ref)
		if m.Cluster != clusterA || m.Meta.System[0].Key != "session/1" || len(m.Meta.Membership.Members) != 1 {
			t.Fatalf("got %+v", m)
		}
		if err := Verify(t.Context(), blobs, ref, once); err != nil {
			t.Fatal(err)
		}
	})
}

func TestEmptyStateIsASnapshot(t *testing.T) {
	d := newTestDirectory()
	ref, stats := upload(t, d, 10, nil)
	if got := readSnapshot(t, d, ref); len(got) != 0 || stats.PartsSent != 0 {
		t.Fatalf("got %d bytes, %+v", len(got), stats)
	}
}

func TestUnchangedStreamSendsNothing(t *testing.T) {
	eachStore(t, func(t *testing.T, blobs Blobs) {
		content := randomBytes(1, 300<<10)
		_, first := upload(t, blobs, 10, content)
		ref, stats := upload(t, blobs, 20, content)
		if stats.PartsSent != 0 || stats.Sent != 0 || stats.PartsReused != first.PartsSent {
			t.Fatalf("first %+v, then %+v", first, stats)
		}
		if got := readSnapshot(t, blobs, ref); !bytes.Equal(got, content) {
			t.Fatal("not the same")
		}
	})
}

func TestSmallChangeSendsFewParts(t *testing.T) {
	d := newTestDirectory()
	content := randomBytes(1, 1<<20)
	_, first := upload(t, d, 10, content)
	changed := append(bytes.Clone(content[:500<<10]), randomBytes(2, 11<<10)...) // one per cent, longer than what it replaces
	changed = append(changed, content[510<<10:]...)
	_, stats := upload(t, d, 20, changed)
	if stats.PartsSent == 0 || stats.PartsSent > first.PartsSent/10 {
		t.Fatalf("first %+v, then %+v", first, stats)
	}
}

func TestKeptLayersSendNothing(t *testing.T) {
	eachStore(t, func(t *testing.T, blobs Blobs) {
		whole, change := randomBytes(1, 100<<10), randomBytes(2, 30<<10)
		first, _ := upload(t, blobs, 10, whole)
		w := watch(blobs)
		u, err := Begin(t.Context(), w, clusterA, UploadOptions{Sizes: smallParts})
		if err != nil {
			t.Fatal(err)
		}
		defer u.Abort()
		kept := openSnapshot(t, blobs, first)
		u.Keep(kept.Layers...)
		if !u.Holds(kept.Layers[0].Parts[0].Digest) {
			t.Fatal("a kept part could be swept")
		}
		writeLayer(t, u, first.Last, change)
		ref, stats, err := u.Commit(t.Context(), testMeta(20))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range kept.Unique() {
			if w.puts[p.Name()] > 0 {
				t.Fatal("a kept part was sent")
			}
		}
		if stats.Raw != uint64(len(change)) || stats.PartsKept != len(kept.Layers[0].Parts) || ref.Bytes != uint64(len(whole)+len(change)) {
			t.Fatalf("got %+v, %+v", ref, stats)
		}
		if got := readSnapshot(t, blobs, ref); !bytes.Equal(got, append(bytes.Clone(whole), change...)) {
			t.Fatal("not the same")
		}
		m := openSnapshot(t, blobs, ref)
		r := LayerReader(t.Context(), blobs, &m.Layers[1], once)
		if got, err := io.ReadAll(r); err != nil || r.Close() != nil || !bytes.Equal(got, change) || m.Layers[1].Since != first.Last {
			t.Fatalf("the second layer is not what was written: %v", err)
		}
		if refs, damaged, err := List(t.Context(), blobs); err != nil || len(damaged) != 0 || len(refs) != 2 || refs[0] != ref || refs[1] != first {
			t.Fatalf("list: %v, %v, %v", refs, damaged, err)
		}
	})
}

func TestKeptLayerWithMissingPartIsRefused(t *testing.T) {
	d := newTestDirectory()
	first, _ := upload(t, d, 10, randomBytes(1, 100<<10))
	m := openSnapshot(t, d, first)
	lost := m.Layers[0].Parts[2].Name()
	if err := d.Delete(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	u, err := Begin(t.Context(), d, clusterA, UploadOptions{Sizes: smallParts})
	if err != nil {
		t.Fatal(err)
	}
	u.Keep(m.Layers...)
	_, _, err = u.Commit(t.Context(), testMeta(10))
	wantDamage(t, err, lost)
}

func TestUploadIsUsedInOrder(t *testing.T) {
	d := newTestDirectory()
	begin := func() *Upload {
		u, err := Begin(t.Context(), d, clusterA, UploadOptions{Sizes: smallParts})
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	u := begin()
	w := u.Layer(raft.LogID{})
	if _, err := u.Layer(raft.LogID{}).Write([]byte("x")); err == nil {
		t.Error("two layers at once")
	}
	if _, _, err := u.Commit(t.Context(), testMeta(1)); err == nil {
		t.Error("committed with an open layer")
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("written after the end")
	}
	u.Abort()
	if u = begin(); true {
		if _, _, err := u.Commit(t.Context(), testMeta(1)); err == nil {
			t.Error("a snapshot of nothing")
		}
	}
	if _, err := Begin(t.Context(), d, clusterA, UploadOptions{Sizes: PartSizes{Min: 10, Average: 5, Max: 20}}); err == nil {
		t.Error("bad sizes")
	}
	if n := names(t, d); len(n) != 0 {
		t.Errorf("left: %v", n)
	}
}

func TestAbortedUploadIsNotSeenAndHelpsTheNext(t *testing.T) {
	d := newTestDirectory()
	content := randomBytes(1, 300<<10)
	ctx, cancel := context.WithCancel(t.Context())
	u, err := Begin(ctx, d, clusterA, UploadOptions{Sizes: smallParts})
	if err != nil {
		t.Fatal(err)
	}
	writeLayer(t, u, raft.LogID{}, content)
	if err := u.senders.Wait(); err != nil { // all parts are there, and no manifest
		t.Fatal(err)
	}
	cancel()
	if _, _, err := u.Commit(ctx, testMeta(10)); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if _, err := Newest(t.Context(), d); !errors.Is(err, ErrNotFound) {
		t.Fatalf("it is seen: %v", err)
	}
	if _, stats := upload(t, d, 10, content); stats.PartsSent != 0 {
		t.Fatalf("sent again: %+v", stats)
	}
}

func TestResendReplacesWhatIsThere(t *testing.T) {
	d := newTestDirectory()
	content := randomBytes(1, 100<<10)
	ref, _ := upload(t, d, 10, content)
	bad := openSnapshot(t, d, ref).Layers[0].Parts[1]
	put(t, d, bad.Name(), flipped(mustGet(t, d, bad.Name())))
	_, stats := uploadWith(t, d, 10, content, UploadOptions{
		Sizes: smallParts, Resend: func(digest Digest) bool { return digest == bad.Digest },
	})
	if err := Verify(t.Context(), d, ref, once); err != nil || stats.PartsSent != 1 {
		t.Fatalf("%v, %+v", err, stats)
	}
}

// TestEveryDamageIsFound damages each blob of a snapshot in each way, and looks whether reading, verifying and fetching notice.
func TestEveryDamageIsFound(t *testing.T) {
	eachStore(t, func(t *testing.T, blobs Blobs) {
		ref, _ := upload(t, blobs, 10, randomBytes(1, 40<<10))
		m := openSnapshot(t, blobs, ref)
		victims := []string{ref.Name}
		for _, p := range m.Unique() {
			victims = append(victims, p.Name())
		}
		for _, name := range victims {
			good := mustGet(t, blobs, name)
			for way, damage := range map[string]func(){
				"missing":   func() { _ = blobs.Delete(t.Context(), name) },
				"truncated": func() { put(t, blobs, name, good[:len(good)-1]) },
				"empty":     func() { put(t, blobs, name, nil) },
				"longer":    func() { put(t, blobs, name, append(bytes.Clone(good), 0)) },
				"flipped":   func() { put(t, blobs, name, flipped(good)) },
			} {
				t.Run(way, func(t *testing.T) {
					damage()
					err := Verify(t.Context(), blobs, ref, once)
					wantDamage(t, err, name)
					if all := Damages(err); len(all) != 1 {
						t.Errorf("%d damages: %v", len(all), err)
					}
					to := newTestDirectory()
					wantDamage(t, Fetch(t.Context(), blobs, to, ref, FetchOptions{Retry: once}), name)
					if _, err := Open(t.Context(), to, ref); err == nil {
						t.Error("the fetched snapshot looks complete")
					}
					wantDamage(t, Save(t.Context(), blobs, ref, io.Discard, SaveOptions{Retry: once}), name)
					if name != ref.Name {
						_, err := io.ReadAll(Reader(t.Context(), blobs, m, once))
						wantDamage(t, err, name)
					} else if refs, damaged, err := List(t.Context(), blobs); err != nil || len(refs) != 0 || way != "missing" && len(damaged) != 1 {
						t.Errorf("list: %v, %v, %v", refs, damaged, err)
					}
				})
			}
			put(t, blobs, name, good)
		}
		if err := Verify(t.Context(), blobs, ref, once); err != nil {
			t.Fatal(err)
		}
	})
}

// TestWrongContentIsFound: a part that fits its digest, but not what the manifest says of its content.
func TestWrongContentIsFound(t *testing.T) {
	d := newTestDirectory()
	ref, _ := upload(t, d, 10, randomBytes(1, 40<<10))
	for name, change := range map[string]func(p *Part){
		"checksum": func(p *Part) { p.Content++ },
		"longer":   func(p *Part) { p.Raw++ },
		"shorter":  func(p *Part) { p.Raw-- },
	} {
		m := openSnapshot(t, d, ref)
		change(&m.Layers[0].Parts[1])
		_, err := io.ReadAll(Reader(t.Context(), d, m, once))
		var damaged *DamagedError
		if !errors.As(err, &damaged) || damaged.Part != m.Layers[0].Parts[1].Name() {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestVerifyListsAllDamage(t *testing.T) {
	d := newTestDirectory()
	ref, _ := upload(t, d, 10, randomBytes(1, 100<<10))
	parts := openSnapshot(t, d, ref).Unique()
	for _, i := range []int{1, 3, 4} {
		put(t, d, parts[i].Name(), []byte("x"))
	}
	all := Damages(Verify(t.Context(), d, ref, once))
	if len(all) != 3 || all[0].Part != parts[1].Name() || all[2].Part != parts[4].Name() {
		t.Fatalf("got %v", all)
	}
}

func TestFetchGoesOnAfterABreak(t *testing.T) {
	eachStore(t, func(t *testing.T, blobs Blobs) {
		content := randomBytes(1, 200<<10)
		ref, stats := upload(t, blobs, 10, content)
		to := newTestDirectory()
		cut := errors.New("cut")
		w := watch(blobs)
		w.onGet = func(n int, _ string) error {
			if n > 8 {
				return cut
			}
			return nil
		}
		if err := Fetch(t.Context(), w, to, ref, FetchOptions{}); !errors.Is(err, cut) {
			t.Fatalf("got %v", err)
		}
		if _, err := Open(t.Context(), to, ref); err == nil {
			t.Fatal("half a snapshot looks complete")
		}
		have := len(names(t, to))
		if have == 0 || have > 8 {
			t.Fatalf("%d parts were fetched", have)
		}
		// One that was fetched is damaged meanwhile.
		for name := range names(t, to) {
			put(t, to, name, flipped(mustGet(t, to, name)))
			break
		}
		w = watch(blobs)
		var last, of int64
		options := FetchOptions{Progress: func(done, total int64) {
			if done < last {
				t.Errorf("progress goes back from %d to %d", last, done)
			}
			last, of = done, total
		}}
		if err := Fetch(t.Context(), w, to, ref, options); err != nil {
			t.Fatal(err)
		}
		if want := 1 + stats.PartsSent - have + 1; total(w.gets) != want {
			t.Errorf("%d gets for what was missing, want %d", total(w.gets), want)
		}
		if last != of || of != int64(stats.Sent) {
			t.Errorf("progress ends at %d of %d; %d were stored", last, of, stats.Sent)
		}
		if got := readSnapshot(t, to, ref); !bytes.Equal(got, content) {
			t.Fatal("not the same")
		}
		w, last = watch(blobs), 0
		if err := Fetch(t.Context(), w, to, ref, options); err != nil || total(w.gets) != 0 {
			t.Fatalf("a complete one is fetched again: %v, %d gets", err, total(w.gets))
		}
	})
}

func TestFetchReadsAgainWhatComesDamaged(t *testing.T) {
	d := newTestDirectory()
	ref, _ := upload(t, d, 10, randomBytes(1, 50<<10))
	w := watch(d)
	w.onGet = func(_ int, name string) error {
		if w.gets[name] == 1 { // a replica that lags behind
			return ErrNotFound
		}
		return nil
	}
	if err := Fetch(t.Context(), w, newTestDirectory(), ref, FetchOptions{Parallel: 1}); err != nil {
		t.Fatal(err)
	}
}

// What a fetch left, that was broken off, and the disk cannot read any more, is fetched again: else no snapshot could be had any more.
func TestALeftOverThatCannotBeReadIsFetchedAgain(t *testing.T) {
	from, files := newTestDirectory(), vfs.NewMem()
	content := randomBytes(1, 100<<10)
	ref, _ := upload(t, from, 10, content)
	left := openSnapshot(t, from, ref).Unique()[0].Name()
	put(t, NewDirectory(files, "/to"), left, mustGet(t, from, left))
	bad := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileRead && strings.HasSuffix(op.Path, left) {
			return syscall.EIO
		}
		return nil
	})
	if err := Fetch(t.Context(), from, NewDirectory(errorfs.Wrap(files, bad), "/to"), ref, FetchOptions{Retry: once}); err != nil {
		t.Fatal(err)
	}
	if got := readSnapshot(t, NewDirectory(files, "/to"), ref); !bytes.Equal(got, content) {
		t.Error("not the same")
	}
}

func TestTwoFetchesAtOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, blobs Blobs) {
		content := randomBytes(1, 200<<10)
		ref, _ := upload(t, blobs, 10, content)
		for name, targets := range map[string][2]*Directory{
			"two directories": {newTestDirectory(), newTestDirectory()},
			"the same":        func() [2]*Directory { d := newTestDirectory(); return [2]*Directory{d, d} }(),
		} {
			var wait sync.WaitGroup
			for _, to := range targets {
				wait.Go(func() {
					if err := Fetch(t.Context(), blobs, to, ref, FetchOptions{}); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				})
			}
			wait.Wait()
			for _, to := range targets {
				if got := readSnapshot(t, to, ref); !bytes.Equal(got, content) {
					t.Errorf("%s: not the same", name)
				}
			}
		}
	})
}

// TestServerStopsDuringUpload: the server goes in the middle of a part, and comes back when the upload has noticed.
func TestServerStopsDuringUpload(t *testing.T) {
	server := startServer(t, true)
	w := watch(newTestBucket(t, server.connect(), clusterA, BucketOptions{Timeout: time.Second}))
	var stop, start sync.Once
	w.source = func(n int, r io.Reader) io.Reader {
		reads := 0
		return readerFunc(func(p []byte) (int, error) {
			if reads++; n == 5 && reads > 1 {
				stop.Do(server.stop)
			}
			return r.Read(p[:min(len(p), 1<<10)])
		})
	}
	content := randomBytes(1, 200<<10)
	retries := 0
	var mu sync.Mutex
	ref, _ := uploadWith(t, w, 10, content, UploadOptions{Sizes: smallParts, Retry: Retry{Notify: func(err error, _ time.Duration) {
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("retried for %v", err)
		}
		start.Do(server.start)
		mu.Lock()
		retries++
		mu.Unlock()
	}}})
	if retries == 0 {
		t.Fatal("nothing was tried again")
	}
	if got := readSnapshot(t, w, ref); !bytes.Equal(got, content) {
		t.Fatal("not the same")
	}
}

func TestServerStopsDuringFetch(t *testing.T) {
	server := startServer(t, true)
	w := watch(newTestBucket(t, server.connect(), clusterA, BucketOptions{Timeout: time.Second}))
	content := randomBytes(1, 200<<10)
	ref, _ := upload(t, w, 10, content)
	var start sync.Once
	w.onGet = func(n int, _ string) error {
		if n == 6 {
			server.stop()
		}
		return nil
	}
	to := newTestDirectory()
	err := Fetch(t.Context(), w, to, ref, FetchOptions{Retry: Retry{Notify: func(error, time.Duration) { start.Do(server.start) }}})
	if err != nil {
		t.Fatal(err)
	}
	if got := readSnapshot(t, to, ref); !bytes.Equal(got, content) {
		t.Fatal("not the same")
	}
}

func TestSweepRemovesOnlyWhatItMay(t *testing.T) {
	eachStore(t, func(t *testing.T, blobs Blobs) {
		shared := randomBytes(1, 100<<10)
		old, _ := upload(t, blobs, 10, append(bytes.Clone(shared), randomBytes(2, 60<<10)...))
		kept, _ := upload(t, blobs, 20, append(bytes.Clone(shared), randomBytes(3, 60<<10)...))
		oldParts, keptParts := openSnapshot(t, blobs, old).Unique(), openSnapshot(t, blobs, kept).Unique()
		put(t, blobs, "not-ours", []byte("x"))
		named := make(map[Digest]bool)
		for _, p := range keptParts {
			named[p.Digest] = true
		}
		var orphans []Part
		for _, p := range oldParts {
			if !named[p.Digest] {
				orphans = append(orphans, p)
			}
		}
		if len(orphans) < 3 || len(orphans) == len(oldParts) {
			t.Fatalf("%d of %d parts are not shared", len(orphans), len(oldParts))
		}
		fetching := func(d Digest) bool { return d == orphans[0].Digest }

		// The manifest goes, its parts are too young.
		removed, err := Sweep(t.Context(), blobs, only(kept), fetching, time.Hour)
		if err != nil || len(removed) != 1 || removed[0] != old.Name {
			t.Fatalf("got %v, %v", removed, err)
		}
		if removed, err = Sweep(t.Context(), blobs, only(kept), fetching, 0); err != nil || len(removed) != len(orphans)-1 {
			t.Fatalf("got %v, %v", removed, err)
		}
		left := names(t, blobs)
		if len(left) != len(keptParts)+1+1+1 || !left[orphans[0].Name()] || !left["not-ours"] {
			t.Fatalf("left: %v", left)
		}
		if err := Verify(t.Context(), blobs, kept, once); err != nil {
			t.Fatal(err)
		}
	})
}

// What is newer than all that can be read is damaged: perhaps it can be read another time, and until then the one before is the last good one.
func TestSweepSparesADamagedManifestThatIsNewerThanAllOthers(t *testing.T) {
	eachStore(t, func(t *testing.T, blobs Blobs) {
		old, _ := upload(t, blobs, 10, randomBytes(1, 60<<10))
		broken, _ := upload(t, blobs, 20, randomBytes(2, 60<<10))
		put(t, blobs, broken.Name, flipped(mustGet(t, blobs, broken.Name)))
		removed, err := Sweep(t.Context(), blobs, only(old), nil, time.Hour)
		if err != nil || len(removed) != 0 {
			t.Fatalf("removed %v (%v)", removed, err)
		}
		newest, _ := upload(t, blobs, 30, randomBytes(3, 60<<10))
		if removed, err = Sweep(t.Context(), blobs, only(newest, old), nil, time.Hour); err != nil || len(removed) != 1 || removed[0] != broken.Name {
			t.Fatalf("removed %v (%v)", removed, err)
		}
		if err := Verify(t.Context(), blobs, old, once); err != nil {
			t.Fatal(err)
		}
	})
}

// TestAPartThatIsGoneIsNoticed: a part that an upload found there, or has sent, is swept before the manifest is written.
func TestAPartThatIsGoneIsNoticed(t *testing.T) {
	for name, there := range map[string]bool{"found there": true, "sent": false} {
		t.Run(name, func(t *testing.T) {
			d := newTestDirectory()
			content := randomBytes(1, 100<<10)
			if there {
				first, _ := upload(t, d, 10, content)
				if err := d.Delete(t.Context(), first.Name); err != nil { // of a build that failed: parts, and no manifest
					t.Fatal(err)
				}
			}
			u, err := Begin(t.Context(), d, clusterA, UploadOptions{Sizes: smallParts})
			if err != nil {
				t.Fatal(err)
			}
			defer u.Abort()
			writeLayer(t, u, raft.LogID{}, content)
			deadline, tick := time.After(20*time.Second), time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for done := 0; done < len(u.layers[0].Parts); {
				select {
				case <-tick.C:
				case <-deadline:
					t.Fatalf("only %d parts were found there or sent", done)
				}
				u.mu.Lock()
				done = u.stats.PartsReused + u.stats.PartsSent
				if there && u.stats.PartsSent > 0 || !there && u.stats.PartsReused > 0 {
					t.Errorf("%+v", u.stats)
				}
				u.mu.Unlock()
			}
			if _, err := Sweep(t.Context(), d, nil, nil, 0); err != nil { // by another leader
				t.Fatal(err)
			}
			var damaged *DamagedError
			if _, _, err := u.Commit(t.Context(), testMeta(20)); !errors.As(err, &damaged) {
				t.Errorf("a manifest was written: %v", err)
			}
		})
	}
}
