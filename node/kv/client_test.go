package kv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node"
	"quorate/node/kv"
)

func TestClientOperations(t *testing.T) {
	c := startCluster(t, "n1")
	client := c.client()
	ctx := within(t, 30*time.Second)
	for _, key := range []string{"a", "a.b c", "\x00\xff binary\n", strings.Repeat("k", kv.MaxKeyBytes)} {
		value := []byte("value of " + key)
		revision, err := client.Put(ctx, key, value, kv.IfRevision(0))
		if err != nil {
			t.Fatal(err)
		}
		entry, err := client.Get(ctx, key)
		if err != nil || entry.Key != key || !bytes.Equal(entry.Value, value) || entry.Revision != revision || time.Since(entry.Time) > time.Minute {
			t.Fatalf("got %+v (%v)", entry, err)
		}
		if _, err := client.Put(ctx, key, value, kv.IfRevision(0)); !errors.Is(err, kv.ErrCondition) {
			t.Fatalf("created twice: %v", err)
		}
		if next, err := client.Delete(ctx, key, kv.IfRevision(revision)); err != nil || next <= revision {
			t.Fatalf("delete: %d %v", next, err)
		}
		if _, err := client.Delete(ctx, key); !errors.Is(err, kv.ErrNotFound) {
			t.Fatalf("deleted twice: %v", err)
		}
		if _, err := client.Get(ctx, key); !errors.Is(err, kv.ErrNotFound) {
			t.Fatalf("get of a deleted key: %v", err)
		}
	}
	for _, key := range []string{"", strings.Repeat("k", kv.MaxKeyBytes+1)} {
		if _, err := client.Put(ctx, key, nil); !errors.Is(err, kv.ErrInvalidKey) {
			t.Errorf("put of a key of %d bytes: %v", len(key), err)
		}
		if _, err := client.Get(ctx, key); !errors.Is(err, kv.ErrInvalidKey) {
			t.Errorf("get of a key of %d bytes: %v", len(key), err)
		}
	}
	limit, err := client.MaxValueBytes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(ctx, "k", make([]byte, limit-1)); err != nil {
		t.Fatalf("a value at the limit: %v", err)
	}
	var tooLarge *kv.TooLargeError
	if _, err := client.Put(ctx, "k", make([]byte, limit)); !errors.As(err, &tooLarge) || tooLarge.Limit != limit {
		t.Fatalf("a value over the limit: %v", err)
	}
}

func TestConcurrentOperationsShareMessages(t *testing.T) {
	c := startCluster(t, "n1")
	conn := c.connect()
	client, err := kv.NewClient(conn, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx := within(t, 30*time.Second)
	if _, err := client.Put(ctx, "warm", nil); err != nil {
		t.Fatal(err)
	}
	before := conn.Stats().OutMsgs
	const callers, each = 64, 50
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() {
			for n := range each {
				key := fmt.Sprintf("k%d", i)
				if i%2 == 0 {
					key = "shared" // the same key from many: each write gets a revision of its own
				}
				if _, err := client.Put(ctx, key, fmt.Append(nil, n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if sent := conn.Stats().OutMsgs - before; sent > callers*each*3/4 {
		t.Errorf("%d writes took %d messages", callers*each, sent)
	}
	for i := 1; i < callers; i += 2 {
		if e, err := client.Get(ctx, fmt.Sprintf("k%d", i)); err != nil || string(e.Value) != fmt.Sprint(each-1) {
			t.Fatalf("k%d is %q (%v)", i, e.Value, err)
		}
	}
}

func TestListPagesAsOfOneRevision(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1")
	client := c.client()
	ctx := within(t, 60*time.Second)
	const keys = 60_000 // more than a page
	var group sync.WaitGroup
	for w := range 16 {
		group.Go(func() {
			for i := w; i < keys; i += 16 {
				if _, err := client.Put(ctx, fmt.Sprintf("p/%05d", i), []byte("before")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	n := 0
	for entry, err := range client.List(ctx, "p/", false) {
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 { // written while the list goes on: it must not show
			for _, key := range []string{"p/11999", "p/99999"} {
				if _, err := client.Put(ctx, key, []byte("after")); err != nil {
					t.Fatal(err)
				}
			}
		}
		if want := fmt.Sprintf("p/%05d", n); entry.Key != want || string(entry.Value) != "before" {
			t.Fatalf("entry %d is %q with %q", n, entry.Key, entry.Value)
		}
		n++
	}
	if n != keys {
		t.Fatalf("listed %d keys, want %d", n, keys)
	}
	for entry, err := range client.List(ctx, "p/9", true) {
		if err != nil || entry.Key != "p/99999" || entry.Value != nil {
			t.Fatalf("keys only: %+v (%v)", entry, err)
		}
	}
}

// TestListOfManyShortKeys: what surrounds an entry in an answer is more than the entry here, and counts as well.
func TestListOfManyShortKeys(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1")
	client := c.client()
	ctx := within(t, 60*time.Second)
	const keys = 60_000 // 240 kB by themselves, and more than the 1 MiB of a message in one answer
	var group sync.WaitGroup
	const writers = 512
	for w := range writers {
		group.Go(func() {
			for i := w; i < keys; i += writers {
				if _, err := client.Put(ctx, fmt.Sprintf("%05d", i), nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	for _, keysOnly := range []bool{true, false} {
		n := 0
		for entry, err := range client.List(ctx, "", keysOnly) {
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("%05d", n); entry.Key != want {
				t.Fatalf("entry %d is %q", n, entry.Key)
			}
			n++
		}
		if n != keys {
			t.Fatalf("listed %d keys, want %d", n, keys)
		}
	}
}

func TestWithoutAClusterNothingHappenedAndItIsSaid(t *testing.T) {
	c := startCluster(t)
	client := c.client()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := client.Put(ctx, "k", nil); !errors.Is(err, kv.ErrUnavailable) {
		t.Errorf("put: %v", err)
	}
	if _, err := client.Get(ctx, "k"); !errors.Is(err, kv.ErrUnavailable) {
		t.Errorf("get: %v", err)
	}
	for _, err := range client.List(ctx, "", false) {
		if !errors.Is(err, kv.ErrUnavailable) || strings.Contains(err.Error(), "\n") {
			t.Errorf("list: %v", err)
		}
	}
}

// TestManyWritesWithoutACluster: those that share a message that nobody gets had no effect either, and are told so.
func TestManyWritesWithoutACluster(t *testing.T) {
	c := startCluster(t)
	for name, client := range map[string]*kv.Client{"with a session": c.client(), "with message ids": c.client(kv.WithMessageIDs()), "with neither": c.client(kv.WithoutSession())} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		var group sync.WaitGroup
		for i := range 300 {
			group.Go(func() {
				_, err := client.Put(ctx, fmt.Sprint(i), nil)
				if !errors.Is(err, kv.ErrUnavailable) || errors.Is(err, kv.ErrUnknownOutcome) {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		group.Wait()
	}
}

// TestAnAnswerThatIsNotUnderstood: the write may have taken effect.
func TestAnAnswerThatIsNotUnderstood(t *testing.T) {
	c := startCluster(t)
	conn := c.connect()
	for subject, answer := range map[string]string{"leader": "", "batch": "\xffgarbage", "read": ""} {
		if _, err := conn.Subscribe("quorate.test.kv."+subject, func(m *nats.Msg) { _ = m.Respond([]byte(answer)) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	client := c.client(kv.WithoutSession())
	if _, err := client.Put(within(t, 20*time.Second), "k", nil); !errors.Is(err, kv.ErrUnknownOutcome) {
		t.Errorf("put: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := client.Get(ctx, "k"); !errors.Is(err, kv.ErrUnavailable) {
		t.Errorf("get: %v", err)
	}
}

// TestWriteInTheHandsOfALeaderThatDies: the outcome is unknown, and the caller hears it soon, not when its time is up.
func TestWriteInTheHandsOfALeaderThatDies(t *testing.T) {
	c := startCluster(t)
	conn := c.connect()
	taken := make(chan struct{}, 1)
	sub, err := conn.Subscribe("quorate.test.kv.batch", taker(taken)) // a leader that takes writes and never answers
	if err != nil {
		t.Fatal(err)
	}
	leads, err := conn.Subscribe("quorate.test.kv.leader", func(m *nats.Msg) { _ = m.Respond(nil) })
	if err != nil {
		t.Fatal(err)
	}
	client := c.client(kv.WithoutSession())
	result := make(chan error, 1)
	go func() {
		_, err := client.Put(within(t, time.Hour), "k", []byte("v"))
		result <- err
	}()
	<-taken
	if err := errors.Join(sub.Unsubscribe(), leads.Unsubscribe()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-result:
		if !errors.Is(err, kv.ErrUnknownOutcome) {
			t.Fatalf("got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the caller still waits")
	}
}

// TestALoneCallerWaitsNoLongerThanItsContext, also not for the answer to who leads.
func TestALoneCallerWaitsNoLongerThanItsContext(t *testing.T) {
	c := startCluster(t)
	conn := c.connect()
	if _, err := conn.Subscribe("quorate.test.kv.leader", taker(make(chan struct{}))); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	client := c.client()
	for name, call := range map[string]func(context.Context) error{
		"put": func(ctx context.Context) error { _, err := client.Put(ctx, "k", nil); return err },
		"get": func(ctx context.Context) error { _, err := client.Get(ctx, "k"); return err },
	} {
		shortest := time.Hour
		for range 5 { // a busy machine may hold up one or the other
			began := time.Now()
			if err := call(within(t, 20*time.Millisecond)); !errors.Is(err, kv.ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
			shortest = min(shortest, time.Since(began))
		}
		if shortest > 200*time.Millisecond {
			t.Errorf("%s with 20 ms took %v", name, shortest)
		}
	}
}

func TestCloseAnswersWhatWaits(t *testing.T) {
	c := startCluster(t)
	client := c.client()
	var group sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		group.Go(func() {
			if i%2 == 0 {
				_, errs[i] = client.Put(context.Background(), fmt.Sprint(i), nil)
			} else {
				_, errs[i] = client.Get(context.Background(), fmt.Sprint(i))
			}
		})
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	for i, err := range errs {
		sent := i%2 == 0 && errors.Is(err, kv.ErrUnknownOutcome) // a write that had left already
		if !errors.Is(err, kv.ErrClosed) && !sent {
			t.Errorf("operation %d: %v", i, err)
		}
	}
}

func TestClientGoesOnWithTheNextLeader(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1", "n2", "n3")
	client := c.client()
	ctx := within(t, 60*time.Second)
	for round := range 3 {
		key := fmt.Sprint("round", round)
		if _, err := client.Put(ctx, key, []byte("v")); err != nil { // sent again by itself, if need be
			t.Fatal(err)
		}
		leader, err := client.Leader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for id, m := range c.nodes {
			if string(id) == leader {
				m.stop()
				c.start(id)
				break
			}
		}
		if _, err := client.Get(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoRespondersIsNoAnswer: a write that nobody takes had no effect, also when that is learnt late; it is sent again.
func TestNoRespondersIsNoAnswer(t *testing.T) {
	c := startCluster(t)
	client := c.client()
	ctx := within(t, 20*time.Second)
	result := make(chan error, 8)
	for i := range cap(result) {
		go func() {
			_, err := client.Put(ctx, fmt.Sprint("k", i), []byte("v"))
			result <- err
		}()
	}
	c.members = append(c.members, "n1")
	c.start("n1") // it comes up while they ask
	for range cap(result) {
		if err := <-result; err != nil {
			t.Error(err)
		}
	}
}

// A counter, each step conditional on the step before: if a write that is sent again took effect twice, its second answer would be that
// the condition is not met.
func TestACounterNeverCountsTwice(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1", "n2", "n3")
	conn := c.connect()
	client, err := kv.NewClient(conn, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	ctx := within(t, 90*time.Second)
	trouble, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { // answers get lost
		tick := time.NewTicker(17 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = conn.ForceReconnect()
			case <-trouble.Done():
				return
			}
		}
	})
	var revision uint64
	for i := range 400 {
		if i%100 == 50 { // leaders go
			leader, err := client.Leader(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for id, m := range c.nodes {
				if string(id) == leader {
					m.stop()
					c.start(id)
					break
				}
			}
		}
		if revision, err = client.Put(ctx, "counter", fmt.Append(nil, i+1), kv.IfRevision(revision)); err != nil {
			t.Fatalf("step %d: %v", i+1, err)
		}
	}
	stop()
	group.Wait()
	if entry, err := client.Get(ctx, "counter"); err != nil || string(entry.Value) != "400" || entry.Revision != revision {
		t.Fatalf("%+v %v", entry, err)
	}
}

// Over plain NATS an id does the same.
func TestAMessageIDOverPlainNATSCountsOnce(t *testing.T) {
	c := startCluster(t, "n1")
	conn := c.connect()
	if _, err := c.client().Leader(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	put := func(id, value string) *nats.Msg {
		t.Helper()
		m := nats.NewMsg("quorate.test.kv.put.k")
		m.Header.Set(kv.HeaderMessageID, id)
		m.Data = []byte(value)
		reply, err := conn.RequestMsg(m, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	first := put("a", "1").Header.Get(kv.HeaderRevision)
	if again := put("a", "2").Header.Get(kv.HeaderRevision); again != first || first == "" {
		t.Errorf("first revision %q, then %q", first, again)
	}
	if other := put("b", "3").Header.Get(kv.HeaderRevision); other == first {
		t.Errorf("another id got revision %s too", other)
	}
	if code := put(strings.Repeat("x", 300), "4").Header.Get("Nats-Service-Error-Code"); code != "400" {
		t.Errorf("an id that is too long: code %q", code)
	}
}

func TestReadsAtAnyNode(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1", "n2", "n3")
	client := c.client()
	ctx := within(t, 60*time.Second)
	for i := range 20 {
		value := fmt.Append(nil, i)
		if _, err := client.Put(ctx, "k", value); err != nil {
			t.Fatal(err)
		}
		node := string(c.members[i%3])
		if entry, err := client.Get(ctx, "k", kv.FromNode(node)); err != nil || !bytes.Equal(entry.Value, value) {
			t.Fatalf("linearizable read at %s after a write of %s: %q %v", node, value, entry.Value, err)
		}
		n := 0
		for entry, err := range client.List(ctx, "", false, kv.FromNode(node)) {
			if n++; err != nil || !bytes.Equal(entry.Value, value) {
				t.Fatalf("list at %s: %q %v", node, entry.Value, err)
			}
		}
		if n != 1 {
			t.Fatalf("%d keys", n)
		}
	}
	var source kv.Source
	if _, err := client.Get(ctx, "k", kv.Local(&source)); err != nil || source.Node == "" || source.Staleness < 0 || source.Staleness > time.Minute {
		t.Errorf("local read %v: %+v", err, source)
	}
	// Without a quorum a local read is served, a linearizable one is not.
	if _, err := client.Get(ctx, "k", kv.FromNode("n1")); err != nil {
		t.Fatal(err)
	}
	alone := c.nodes["n1"]
	c.nodes["n2"].stop()
	c.nodes["n3"].stop()
	if entry, err := client.Get(ctx, "k", kv.Local(&source), kv.FromNode("n1")); err != nil || string(entry.Value) != "19" || source.Node != "n1" {
		t.Errorf("%+v %v from %+v", entry, err, source)
	}
	if _, err := alone.Wait(ctx, func(s node.Status) bool { return s.Leader == "" }); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get(within(t, 300*time.Millisecond), "k", kv.FromNode("n1")); !errors.Is(err, kv.ErrUnavailable) {
		t.Errorf("linearizable read in a minority: %v", err)
	}
	if _, err := client.Get(within(t, 300*time.Millisecond), "k", kv.Local(nil), kv.FromNode("n9")); !errors.Is(err, kv.ErrUnavailable) {
		t.Errorf("read at nobody: %v", err)
	}
}
