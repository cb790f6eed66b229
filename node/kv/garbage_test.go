package kv_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/kv/kvpb"
	"quorate/node/raft"
	"quorate/transport"
)

// TestGarbageOnEverySubject: whatever comes on whatever subject, no node stops, nothing that was written changes, clients are told
// what is wrong with their requests, and peers' messages are counted by the reason of the refusal.
func TestGarbageOnEverySubject(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "n1", "n2", "n3")
	client, conn := c.client(), c.connect()
	ctx := within(t, 2*time.Minute)
	if _, err := client.Put(ctx, "kept", []byte("value")); err != nil {
		t.Fatal(err)
	}
	payloads := garbage(t, int(conn.MaxPayload()))

	for _, endpoint := range []string{"batch", "session", "read", "range", "any.read", "any.range"} {
		for i, payload := range payloads {
			reply := request(t, conn, "quorate.test.kv."+endpoint, payload, nil)
			if code := reply.Header.Get(micro.ErrorCodeHeader); code != "400" || reply.Header.Get(micro.ErrorHeader) == "" {
				t.Errorf("%s, payload %d: answer %v", endpoint, i, reply.Header)
			}
		}
	}

	inbox := conn.NewInbox()
	send := func(subject string, payload []byte) {
		t.Helper()
		m := &nats.Msg{Subject: subject, Reply: inbox, Data: payload, Header: nats.Header{"Nats-Msg-Id": {"\x00"}, "traceparent": {"00-xyz"}, kv.HeaderIfRevision: {"-1"}}}
		if len(payload) > int(conn.MaxPayload())/2 {
			m.Header = nil
		}
		for _, reply := range []string{"", inbox} {
			m.Reply = reply
			if err := conn.PublishMsg(m); err != nil {
				t.Fatal(err)
			}
		}
	}
	foreign := envelopes(t, raft.ClusterID{43})
	for _, payload := range payloads {
		for _, subject := range []string{"status", "spans", "kv.leader", "kv.get.kept"} {
			send("quorate.test."+subject, payload)
		}
		if len(payload) <= int(conn.MaxPayload())/2 { // a header says that the write is conditional
			send("quorate.test.kv.put.kept", payload)
			send("quorate.test.kv.del.kept", payload)
		}
		for id := range c.nodes {
			for _, op := range []string{"status", "members", "transfer", "membership", "part", "kv.read", "kv.range"} {
				send(fmt.Sprintf("quorate.test.node.%s.%s", id, op), payload)
			}
		}
	}
	for id, m := range c.nodes {
		for rpc, addressed := range map[string]bool{
			"vote": true, "append": true, "install": true, "timeoutnow": true, "read": true, "propose": true, "ping": true, "hello": false, "adopt": false,
		} {
			subject := fmt.Sprintf("quorate.test.raft.%s.%s", id, rpc)
			if addressed {
				subject += "." + m.Status().Incarnation
			}
			for _, payload := range payloads {
				send(subject, payload)
			}
			for _, payload := range foreign {
				send(subject, payload)
			}
		}
	}
	if err := conn.FlushTimeout(time.Minute); err != nil {
		t.Fatal(err)
	}

	const rpcs, replies = 9, 2
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for id, m := range c.nodes {
		counted := func(s node.Status) bool {
			return s.Refused[transport.ReasonMalformed]+s.Refused[transport.ReasonVersion] >= uint64(rpcs*replies*len(payloads)) &&
				s.Refused[transport.ReasonCluster] >= uint64(rpcs*replies*len(foreign))
		}
		for !counted(m.Status()) && ctx.Err() == nil {
			<-tick.C
		}
		if s := m.Status(); !counted(s) {
			t.Errorf("%s counted %v, of %d and %d", id, s.Refused, rpcs*replies*len(payloads), rpcs*replies*len(foreign))
		}
		if err := m.Err(); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	if entry, err := client.Get(ctx, "kept"); err != nil || string(entry.Value) != "value" {
		t.Errorf("what was written is %q now (%v)", entry.Value, err)
	}
	if _, err := client.Put(ctx, "next", nil); err != nil {
		t.Error(err)
	}
}

// garbage is what is no request: nothing that a decoder could take for one.
func garbage(t *testing.T, maxPayload int) [][]byte {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		b[0] = 0xff // no field of any message
		return b
	}
	valid, err := (&kvpb.BatchRequest{Version: 1, Ops: []*kvpb.Op{{Kind: 1, Key: []byte("kept"), Value: []byte("other")}}}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	payloads := [][]byte{nil, []byte("garbage"), []byte("{}"), noise(1), noise(100), noise(64 << 10), noise(maxPayload), bytes.Repeat([]byte{0}, 1000), valid[:len(valid)-1]}
	return append(payloads, []byte(strings.Repeat(`{"a":`, 10_000)))
}

// envelopes are well-formed messages of another cluster.
func envelopes(t *testing.T, cluster raft.ClusterID) [][]byte {
	t.Helper()
	stranger := raft.Peer{ID: "stranger", Incarnation: 5}
	var all [][]byte
	for _, message := range []any{
		&raft.VoteRequest{Term: 1 << 40, Candidate: stranger, Last: raft.LogID{Term: 1 << 39, Index: 1 << 39}},
		&raft.AppendRequest{Term: 1 << 40, Leader: stranger, Prev: raft.LogID{Term: 1, Index: 1}, Commit: 1 << 39},
		&raft.TimeoutNowRequest{Term: 1 << 40, Leader: stranger},
		&transport.ReadIndexRequest{},
		&transport.PingRequest{},
	} {
		b, err := transport.Encode(nil, transport.Envelope{Cluster: cluster, From: stranger, Boot: 6}, message)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}
