package transport

import (
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"quorate/node/raft"
	"quorate/transport/raftpb"
)

// appendOf is a message with n entries of size bytes.
func appendOf(t testing.TB, n, size int) *raft.AppendRequest {
	req := &raft.AppendRequest{Term: 1, Leader: alice, Commit: 3, Successors: []raft.NodeID{"n2", "n3"}}
	data := string(make([]byte, size))
	for i := range n {
		req.Entries = append(req.Entries, sealed(t, 1, uint64(i+1), data))
	}
	return req
}

func encoded(t testing.TB, message any) []byte {
	b, err := Encode(nil, env, message)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What a message costs must not grow with the number of its entries, but for the entries themselves.
func TestAllocationsDoNotGrowWithTheEntries(t *testing.T) {
	cost := func(n int) (encode, decode float64) {
		req := appendOf(t, n, 256)
		b := encoded(t, req)
		encode = testing.AllocsPerRun(20, func() { _ = encoded(t, req) })
		decode = testing.AllocsPerRun(20, func() {
			if _, _, err := Decode(b); err != nil {
				t.Fatal(err)
			}
		})
		return encode, decode
	}
	encodeOne, decodeOne := cost(1)
	encodeMany, decodeMany := cost(500)
	if encodeMany != encodeOne || decodeMany != decodeOne {
		t.Errorf("500 entries: %v allocations to encode, %v to decode; one entry: %v and %v", encodeMany, decodeMany, encodeOne, decodeOne)
	}
}

func TestEntriesAreNotCopied(t *testing.T) {
	b := encoded(t, appendOf(t, 3, 256))
	_, message, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	low, high := uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&b[len(b)-1]))
	for _, entry := range message.(*raft.AppendRequest).Entries {
		if p := uintptr(unsafe.Pointer(&entry.Raw[0])); p < low || p > high {
			t.Errorf("entry %v was copied", entry.ID)
		}
	}
}

// A megabyte of entries of no bytes would be fifty megabytes in memory.
func TestAbsurdlyManyEntriesAreRefusedBeforeThereIsRoomForThem(t *testing.T) {
	var body []byte
	for range 400_000 {
		body = protowire.AppendBytes(protowire.AppendTag(body, fieldEntries, protowire.BytesType), nil)
	}
	b := protowire.AppendBytes(protowire.AppendTag(nil, fieldAppendRequest, protowire.BytesType), body)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := Decode(b)
	runtime.ReadMemStats(&after)
	if err == nil {
		t.Fatal("it was decoded")
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > uint64(len(b)) {
		t.Errorf("%d bytes were allocated for a message of %d", used, len(b))
	}
}

// The entries are found by field numbers of this package's own: they must be those of the generated code.
func TestRoomIsForTheEntriesOfAnAppend(t *testing.T) {
	for _, n := range []int{0, 1, 7} {
		var pb raftpb.Envelope
		if err := makeRoom(&pb, encoded(t, appendOf(t, n, 10))); err != nil {
			t.Fatal(err)
		}
		if got := cap(pb.GetAppendRequest().GetEntries()); got != n {
			t.Errorf("room for %d entries of %d", got, n)
		}
	}
	for _, message := range messages(t) {
		var pb raftpb.Envelope
		if err := makeRoom(&pb, encoded(t, message)); err != nil {
			t.Fatalf("%T: %v", message, err)
		}
		if _, ok := message.(*raft.AppendRequest); !ok && pb.Body != nil {
			t.Errorf("room was made in %T", message)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{0, 500} {
		req := appendOf(b, n, 256)
		message := encoded(b, req)
		b.Run(fmt.Sprintf("encode/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(message)))
			for b.Loop() {
				_ = encoded(b, req)
			}
		})
		b.Run(fmt.Sprintf("decode/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(message)))
			for b.Loop() {
				if _, _, err := Decode(message); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
