package kv_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"quorate/node/kv"
	"quorate/node/kv/kvpb"
)

// TestABatchThatPutsWhatItHasDeletedIsRefused: a key that comes twice is refused, and a put behind a delete was not: both have one revision, and
// what was told of the delete was of no revision at all.
func TestABatchThatPutsWhatItHasDeletedIsRefused(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1")
	client, conn, ctx := c.client(), c.connect(), within(t, 30*time.Second)
	if _, err := client.Put(ctx, "k", []byte("old")); err != nil {
		t.Fatal(err)
	}
	batch := &kvpb.BatchRequest{Version: 1, Ops: []*kvpb.Op{
		{Kind: 2, Key: []byte("k")}, {Kind: 1, Key: []byte("other")}, {Kind: 1, Key: []byte("k"), Value: []byte("new")},
	}}
	payload, err := batch.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	reply := request(t, conn, "quorate.test.kv.batch", payload, nil)
	if reply.Header.Get(micro.ErrorCodeHeader) != "400" || !strings.Contains(reply.Header.Get(micro.ErrorHeader), `"k"`) {
		t.Errorf("answer %v", reply.Header)
	}
	if entry, err := client.Get(ctx, "k"); err != nil || string(entry.Value) != "old" {
		t.Errorf("%q (%v)", entry.Value, err)
	}
	batch.Ops = batch.Ops[:2]
	if payload, err = batch.MarshalVT(); err != nil {
		t.Fatal(err)
	}
	if reply := request(t, conn, "quorate.test.kv.batch", payload, nil); len(reply.Header) > 0 {
		t.Errorf("answer to a batch that names no key twice: %v", reply.Header)
	}
	if _, err := client.Get(ctx, "k"); !errors.Is(err, kv.ErrNotFound) {
		t.Error(err)
	}
}
