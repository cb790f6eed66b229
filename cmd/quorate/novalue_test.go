package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"quorate/node/kv/kvpb"
)

// playNoValue plays a leader that has the keys a, large and z, and can send all values but that of large.
func playNoValue(t *testing.T) {
	t.Helper()
	url := startNATS(t)
	t.Setenv("NATS_URL", url)
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if _, err := conn.Subscribe("quorate.c.kv.range", func(m *nats.Msg) {
		var r kvpb.RangeRequest
		if err := r.UnmarshalVT(m.Data); err != nil {
			t.Error(err)
		}
		keys := []string{"a", "large", "z"}
		keys = keys[slices.IndexFunc(keys, func(key string) bool { return key > string(r.After) }):]
		if keys[0] == "large" && !r.KeysOnly {
			_ = m.RespondMsg(&nats.Msg{Header: nats.Header{micro.ErrorHeader: {"the value of large"}, micro.ErrorCodeHeader: {"413"}}})
			return
		}
		page := kvpb.RangeResponse{Revision: 9, More: len(keys) > 1, Versions: []*kvpb.Version{{Key: []byte(keys[0]), Value: []byte("of " + keys[0]), Revision: 5}}}
		b, err := page.MarshalVT()
		if err != nil {
			t.Error(err)
		}
		_ = m.Respond(b) // whoever asked may have ended
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Subscribe("quorate.c.kv.leader", func(m *nats.Msg) {
		b, err := (&kvpb.Leader{Node: "n1", Term: 1, MaxCommandBytes: 1 << 19}).MarshalVT()
		if err != nil {
			t.Error(err)
		}
		_ = m.Respond(b)
	}); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

// A value that NATS does not take any more keeps nobody from a copy of all others, and is no success.
func TestExportGoesOnBehindAValueThatNATSDoesNotTake(t *testing.T) {
	playNoValue(t)
	dir := t.TempDir()
	status, stdout, stderr := quorate(t, nil, "export", dir, "--cluster", "c", "-o", "json")
	summary := readJSON[exportSummary](t, stdout)
	if status != statusFailed || summary.Files != 2 || len(summary.Failed) != 1 || !strings.Contains(stderr, "large: not written: ") {
		t.Errorf("exit status %d: %s%s", status, stdout, stderr)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"a", "z"}) {
		t.Errorf("there is %q", got)
	}
	if got := read(t, filepath.Join(dir, "z")); got != "of z" {
		t.Errorf("z has %q", got)
	}
}

func TestLsGoesOnBehindAValueThatNATSDoesNotTake(t *testing.T) {
	playNoValue(t)
	status, stdout, stderr := quorate(t, nil, "ls", "--values", "--cluster", "c", "-o", "json")
	if status != statusFailed || strings.Count(stdout, "\n") != 2 || !strings.Contains(stdout, `"z"`) || !strings.Contains(stderr, "large") {
		t.Errorf("exit status %d: %s%s", status, stdout, stderr)
	}
}
