package kv

import (
	"bytes"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"quorate/node"
	"quorate/node/kv/kvpb"
	"quorate/node/raft"
)

// FuzzBatchRequest: every batch that the service lets into the log can be applied, or the nodes would stop, one after the other.
func FuzzBatchRequest(f *testing.F) {
	for _, ops := range [][]*kvpb.Op{
		{{Kind: opPut, Key: []byte("a"), Value: []byte("1")}},
		{{Kind: opDelete, Key: []byte("a")}, {Kind: opPut, Key: []byte("b"), Conditional: true, Expected: 3}},
		{{Kind: opPut}, {Kind: opPut, Key: bytes.Repeat([]byte("k"), MaxKeyBytes+1)}, {Kind: opDelete, Key: []byte("a")}, {Kind: opDelete, Key: []byte("a")}},
	} {
		b, err := (&kvpb.BatchRequest{Version: commandVersion, Ops: ops}).MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	s := openStore(f, vfs.NewMem())
	defer s.Close()
	index := uint64(0)
	f.Fuzz(func(t *testing.T, b []byte) {
		var batch kvpb.BatchRequest
		if batch.UnmarshalVTUnsafe(b) != nil || checkBatch(&batch) != nil {
			return
		}
		command, err := encodeCommand(batch.Ops)
		if err != nil {
			t.Fatal(err)
		}
		index++
		id := raft.LogID{Term: 1, Index: index}
		results, err := s.Apply(node.Batch{Commands: []node.Command{{ID: id, Time: time.Unix(0, 1), Data: command}}, Last: id})
		if err != nil {
			t.Fatal(err)
		}
		var outcome kvpb.Outcome
		if err := outcome.UnmarshalVT(results[0]); err != nil || len(outcome.Ops) != len(batch.Ops) {
			t.Errorf("%d outcomes of %d operations, %v", len(outcome.Ops), len(batch.Ops), err)
		}
	})
}

// FuzzReads: whatever is asked for, the store answers or says what is wrong, and a page is in order and of what was asked for.
func FuzzReads(f *testing.F) {
	for _, r := range []*kvpb.RangeRequest{
		{Version: commandVersion}, {Version: commandVersion, Prefix: []byte("key"), After: []byte("key3"), Limit: 2},
		{Version: commandVersion, Prefix: []byte("key"), After: []byte("z")}, {Version: commandVersion, Prefix: []byte("\xff\x00"), Revision: 1 << 63, KeysOnly: true},
	} {
		b, err := r.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	s := openStore(f, vfs.NewMem())
	defer s.Close()
	fillStore(f, s, 1, 20)
	f.Fuzz(func(t *testing.T, b []byte) {
		var read kvpb.ReadRequest
		if read.UnmarshalVTUnsafe(b) == nil {
			for _, key := range read.Keys {
				if _, err := s.Get(string(key), 0); err == nil && !bytes.HasPrefix(key, []byte("key")) {
					t.Errorf("there is a key %q", key)
				}
			}
		}
		var r kvpb.RangeRequest
		if r.UnmarshalVT(b) != nil {
			return
		}
		entries, _, err := s.Range(RangeOptions{
			Prefix: string(r.Prefix), After: string(r.After), Revision: r.Revision, KeysOnly: r.KeysOnly, Limit: int(min(r.Limit, 10_000)), MaxBytes: 1 << 10,
		})
		if err != nil {
			return
		}
		last := string(r.After)
		for _, entry := range entries {
			if !bytes.HasPrefix([]byte(entry.Key), r.Prefix) || entry.Key <= last {
				t.Errorf("prefix %q after %q: %q", r.Prefix, last, entry.Key)
			}
			last = entry.Key
		}
	})
}

// FuzzAnswers decodes what a client may be sent.
func FuzzAnswers(f *testing.F) {
	for _, m := range []interface{ MarshalVT() ([]byte, error) }{
		&kvpb.Leader{Node: "n1", Term: 3, MaxCommandBytes: 1 << 20}, &kvpb.BatchResponse{Ops: []*kvpb.OpOutcome{{Status: outcomeDone, Revision: 7}}},
		&kvpb.ReadResponse{Versions: []*kvpb.Version{{Key: []byte("k"), Revision: 7}}}, &kvpb.SessionResponse{Session: 9},
	} {
		b, err := m.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var batch kvpb.BatchResponse
		if batch.UnmarshalVT(b) == nil {
			for _, outcome := range batch.Ops {
				if err := outcomeError(outcome); (err == nil) != (outcome.Status == outcomeDone) {
					t.Errorf("outcome %v is %v", outcome, err)
				}
			}
		}
		var read kvpb.ReadResponse
		if read.UnmarshalVT(b) == nil {
			for _, v := range read.Versions {
				entryOf(v)
			}
		}
		for _, m := range []interface{ UnmarshalVT([]byte) error }{&kvpb.Leader{}, &kvpb.RangeResponse{}, &kvpb.SessionRequest{}, &kvpb.SessionResponse{}, &kvpb.Outcome{}} {
			_ = m.UnmarshalVT(b) // must not panic
		}
	})
}
