package transport

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"quorate/storage"
	"quorate/transport/raftpb"
)

const (
	// The numbers of Envelope.append_request and AppendRequest.entries in raftpb; a test holds them against the generated code.
	fieldAppendRequest protowire.Number = 12
	fieldEntries       protowire.Number = 4

	// minEntryBytes is the length of the smallest entry: term, index, kind and checksum.
	minEntryBytes = 2 + 2 + 2 + 5
)

// makeRoom looks through an encoded append request for how many entries it has, and makes room for them in one piece:
// decoding would else let the list grow step by step. An entry in memory is many times the size of one of no bytes, so
// a message with entries that are too short to be any is refused before room is made.
// What is not well-formed is left for decoding to find.
func makeRoom(pb *raftpb.Envelope, b []byte) error {
	entries := 0
	for body := range fieldValues(b, fieldAppendRequest) {
		for raw := range fieldValues(body, fieldEntries) {
			if len(raw) < minEntryBytes {
				return &MessageError{Reason: ReasonEntry, Err: fmt.Errorf("entry of %d bytes: %w", len(raw), storage.ErrCorrupt)}
			}
			entries++
		}
	}
	if entries > 0 {
		pb.Body = &raftpb.Envelope_AppendRequest{AppendRequest: &raftpb.AppendRequest{Entries: make([][]byte, 0, entries)}}
	}
	return nil
}

// fieldValues goes through the values of one length-delimited field, up to the first fault.
func fieldValues(b []byte, field protowire.Number) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			number, wire, n := protowire.ConsumeTag(b)
			if n < 0 {
				return
			}
			b = b[n:]
			if number == field && wire == protowire.BytesType {
				value, n := protowire.ConsumeBytes(b)
				if n < 0 || !yield(value) {
					return
				}
				b = b[n:]
				continue
			}
			if n = protowire.ConsumeFieldValue(number, wire, b); n < 0 {
				return
			}
			b = b[n:]
		}
	}
}
