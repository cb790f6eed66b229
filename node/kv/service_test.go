package kv_test

import (
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"quorate/node/kv"
	"quorate/node/kv/kvpb"
)

// request sends a plain NATS request, as any client in any language would, again while there is no leader.
func request(t *testing.T, conn *nats.Conn, subject string, data []byte, header nats.Header) *nats.Msg {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		reply, err := conn.RequestMsg(&nats.Msg{Subject: subject, Data: data, Header: header}, 5*time.Second)
		if err == nil {
			return reply
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", subject, err)
		}
	}
}

func TestPlainNATSRequests(t *testing.T) {
	c := startCluster(t, "n1")
	conn := c.connect()
	const base = "quorate.test.kv."
	created := request(t, conn, base+"put.app.greeting", []byte("hello"), nats.Header{kv.HeaderIfRevision: {"0"}})
	revision := created.Header.Get(kv.HeaderRevision)
	if created.Header.Get(micro.ErrorCodeHeader) != "" || revision == "" || revision == "0" {
		t.Fatalf("create: %v", created.Header)
	}
	got := request(t, conn, base+"get.app.greeting", nil, nil)
	if string(got.Data) != "hello" || got.Header.Get(kv.HeaderRevision) != revision {
		t.Fatalf("get: %q %v", got.Data, got.Header)
	}
	large := make([]byte, int(conn.MaxPayload())-512) // fits a message, not an entry
	for _, c := range []struct {
		name, subject string
		data          []byte
		header        nats.Header
		code, says    string
	}{
		{"missing key", base + "get.nothing", nil, nil, "404", "not found"},
		{"delete of a missing key", base + "del.nothing", nil, nil, "404", "not found"},
		{"created already", base + "put.app.greeting", []byte("x"), nats.Header{kv.HeaderIfRevision: {"0"}}, "409", "at revision " + revision},
		{"not a revision", base + "put.app.greeting", []byte("x"), nats.Header{kv.HeaderIfRevision: {"new"}}, "400", `"new" is not a revision`},
		{"too large", base + "put.big", large, nil, "413", "the limit is"},
		{"key too long", base + "put." + strings.Repeat("x", kv.MaxKeyBytes+1), nil, nil, "400", "the limit is 1024"},
		{"too many operations", base + "batch", manyOps(t), nil, "400", "the limit is"},
		{"malformed batch", base + "batch", []byte("garbage"), nil, "400", ""},
		{"malformed read", base + "read", []byte("garbage"), nil, "400", ""},
		{"malformed range", base + "range", []byte("garbage"), nil, "400", ""},
	} {
		reply := request(t, conn, c.subject, c.data, c.header)
		if reply.Header.Get(micro.ErrorCodeHeader) != c.code || !strings.Contains(reply.Header.Get(micro.ErrorHeader), c.says) {
			t.Errorf("%s: %v, want code %s saying %q", c.name, reply.Header, c.code, c.says)
		}
	}
	updated := request(t, conn, base+"put.app.greeting", []byte("hi"), nats.Header{kv.HeaderIfRevision: {revision}})
	if updated.Header.Get(micro.ErrorCodeHeader) != "" {
		t.Fatalf("conditional update: %v", updated.Header)
	}
	deleted := request(t, conn, base+"del.app.greeting", nil, nil)
	if deleted.Header.Get(micro.ErrorCodeHeader) != "" {
		t.Fatalf("delete: %v", deleted.Header)
	}
	if gone := request(t, conn, base+"get.app.greeting", nil, nil); gone.Header.Get(micro.ErrorCodeHeader) != "404" {
		t.Fatalf("after delete: %v", gone.Header)
	}
}

// manyOps is a batch that would take long to apply.
func manyOps(t *testing.T) []byte {
	t.Helper()
	batch := &kvpb.BatchRequest{Version: 1}
	for i := range 50_000 {
		batch.Ops = append(batch.Ops, &kvpb.Op{Kind: 2, Key: binary.BigEndian.AppendUint32(nil, uint32(i))})
	}
	b, err := batch.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestManyKeysInOneRead asks for so many small keys that their versions, with what surrounds each, fit into no message.
func TestManyKeysInOneRead(t *testing.T) {
	c := startCluster(t, "n1")
	conn := c.connect()
	request(t, conn, "quorate.test.kv.put.a", nil, nil)
	read := &kvpb.ReadRequest{Version: 1}
	for range 300_000 {
		read.Keys = append(read.Keys, []byte("a"))
	}
	b, err := read.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	reply := request(t, conn, "quorate.test.kv.read", b, nil)
	var page kvpb.ReadResponse
	if err := page.UnmarshalVT(reply.Data); err != nil || len(page.Versions) == 0 || len(page.Versions) == len(read.Keys) {
		t.Errorf("%d versions, %v", len(page.Versions), err)
	}
}

// TestMicroServiceShowsUp asks what `nats micro ls`, `info` and `stats` ask.
func TestMicroServiceShowsUp(t *testing.T) {
	c := startCluster(t, "n1")
	conn := c.connect()
	request(t, conn, "quorate.test.kv.put.a", []byte("1"), nil)
	var ping micro.Ping
	decode(t, request(t, conn, "$SRV.PING."+kv.ServiceName, nil, nil), &ping)
	if ping.Name != kv.ServiceName {
		t.Fatalf("ping: %+v", ping)
	}
	var info micro.Info
	decode(t, request(t, conn, "$SRV.INFO."+kv.ServiceName, nil, nil), &info)
	if len(info.Endpoints) != 9 || info.Metadata["cluster"] != "test" {
		t.Fatalf("info: %+v", info)
	}
	for _, endpoint := range info.Endpoints {
		if endpoint.QueueGroup != "" {
			t.Errorf("endpoint %s has queue group %q: a paused old leader would swallow requests", endpoint.Name, endpoint.QueueGroup)
		}
	}
	var stats micro.Stats
	decode(t, request(t, conn, "$SRV.STATS."+kv.ServiceName, nil, nil), &stats)
	for _, endpoint := range stats.Endpoints {
		if endpoint.Name == "put" && endpoint.NumRequests != 1 {
			t.Errorf("stats of put: %+v", endpoint)
		}
	}
}

func decode(t *testing.T, reply *nats.Msg, to any) {
	t.Helper()
	if err := json.Unmarshal(reply.Data, to); err != nil {
		t.Fatalf("%s: %v", reply.Data, err)
	}
}

// TestOnlyTheLeaderAnswers counts the answers to one request: one, from whoever leads.
func TestOnlyTheLeaderAnswers(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1", "n2", "n3")
	conn := c.connect()
	request(t, conn, "quorate.test.kv.put.a", []byte("1"), nil)
	inbox := conn.NewInbox()
	sub, err := conn.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.PublishRequest("quorate.test.kv.get.a", inbox, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.NextMsg(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	// A second request behind it: by its answer, a second one to the first would have come too.
	request(t, conn, "quorate.test.kv.get.a", nil, nil)
	if n, _, err := sub.Pending(); err != nil || n != 0 {
		t.Fatalf("%d more answers (%v)", n, err)
	}
}
