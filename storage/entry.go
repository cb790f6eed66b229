package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"quorate/node/raft"
)

// The fields of entrypb.Entry. Entries are the hot path, so they are encoded by hand; a test holds this against the
// generated code.
const (
	fieldTerm     protowire.Number = 1
	fieldIndex    protowire.Number = 2
	fieldKind     protowire.Number = 3
	fieldTime     protowire.Number = 4
	fieldSession  protowire.Number = 5
	fieldSequence protowire.Number = 6
	fieldLowWater protowire.Number = 7
	fieldData     protowire.Number = 8
	fieldFormat   protowire.Number = 9
	fieldChecksum protowire.Number = 15

	// entryFormat is the newest format of entries that is known here. It is zero, which is not written.
	entryFormat = 0
	// checksumBytes is the length of the checksum field: one byte of tag, four of value.
	checksumBytes = 5
	// maxFieldBytes bounds what stands before and around the data: a tag of one byte and a varint of at most ten for each of the
	// eight fields, and the checksum.
	maxFieldBytes = 8*11 + checksumBytes
)

// MaxIndex is the largest term, index, session or sequence that is taken from outside: far above what any cluster can reach,
// far enough below the end of the range that arithmetic on it cannot overflow.
const MaxIndex = 1 << 62

// checksum is CRC-32C. The standard library makes its table once, and uses the processor's instruction.
func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// SealEntry encodes the entry into its Raw field, with a checksum. The membership or setting of an entry of such a kind becomes its Data.
// Data becomes a part of Raw, so that the payload is in memory once. It refuses what OpenEntry would refuse, and changes nothing
// then.
func SealEntry(e *raft.Entry) error {
	data, err := e.Data, error(nil)
	switch e.Kind {
	case raft.EntryMembership:
		data, err = EncodeMembership(e.Membership)
	case raft.EntrySetting:
		data, err = EncodeSetting(e.Setting)
	}
	if err != nil {
		return fmt.Errorf("entry %v: %w", e.ID, err)
	}
	if fault := entryFault(e); fault != "" {
		return fmt.Errorf("entry %v cannot be encoded: %s", e.ID, fault)
	}
	b := make([]byte, 0, len(data)+maxFieldBytes)
	b = appendVarint(b, fieldTerm, e.ID.Term)
	b = appendVarint(b, fieldIndex, e.ID.Index)
	b = appendVarint(b, fieldKind, uint64(e.Kind))
	b = appendVarint(b, fieldTime, uint64(e.Time))
	b = appendVarint(b, fieldSession, e.Session)
	b = appendVarint(b, fieldSequence, e.Sequence)
	b = appendVarint(b, fieldLowWater, e.LowWater)
	end := 0 // of the data
	if len(data) > 0 {
		b = append(b, byte(protowire.EncodeTag(fieldData, protowire.BytesType)))
		b = protowire.AppendBytes(b, data)
		end = len(b)
	}
	sum := checksum(b)
	b = append(b, byte(protowire.EncodeTag(fieldChecksum, protowire.Fixed32Type)))
	e.Raw = binary.LittleEndian.AppendUint32(b, sum)
	e.Data = nil
	if end > 0 {
		e.Data = e.Raw[end-len(data) : end : end]
	}
	return nil
}

// appendVarint appends a field of a number below 16, whose tag is one byte, if it is not zero.
func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(append(b, byte(protowire.EncodeTag(field, protowire.VarintType))), v)
}

// OpenEntry checks the checksum of an encoded entry and decodes it. The entry's Raw is raw itself, and its Data a part of
// raw. An entry of a kind that is not known here is opened all the same; one of an unknown format, or whose membership or setting is of one, is of
// kind raft.EntryUnknown. Errors wrap ErrCorrupt.
func OpenEntry(raw []byte) (raft.Entry, error) {
	if len(raw) < checksumBytes {
		return raft.Entry{}, fmt.Errorf("entry of %d bytes: %w: too short", len(raw), ErrCorrupt)
	}
	body, tail := raw[:len(raw)-checksumBytes], raw[len(raw)-checksumBytes:]
	if tail[0] != byte(protowire.EncodeTag(fieldChecksum, protowire.Fixed32Type)) {
		return raft.Entry{}, fmt.Errorf("entry of %d bytes: %w: no checksum at its end", len(raw), ErrCorrupt)
	}
	if sum := checksum(body); sum != binary.LittleEndian.Uint32(tail[1:]) {
		return raft.Entry{}, fmt.Errorf("entry of %d bytes: %w: wrong checksum", len(raw), ErrCorrupt)
	}
	e := raft.Entry{Raw: raw}
	format, err := decodeFields(&e, body)
	if err != nil {
		return raft.Entry{}, fmt.Errorf("entry: %w: %w", ErrCorrupt, err)
	}
	if fault := entryFault(&e); fault != "" {
		return raft.Entry{}, fmt.Errorf("entry %v: %w: %s", e.ID, ErrCorrupt, fault)
	}
	if format > entryFormat {
		e.Kind = raft.EntryUnknown
		return e, nil
	}
	switch e.Kind {
	case raft.EntryMembership:
		e.Membership, err = DecodeMembership(e.Data)
	case raft.EntrySetting:
		e.Setting, err = DecodeSetting(e.Data)
	}
	switch {
	case errors.Is(err, ErrNewer):
		e.Kind = raft.EntryUnknown
	case err != nil:
		return raft.Entry{}, fmt.Errorf("entry %v: %w", e.ID, err)
	}
	return e, nil
}

// decodeFields reads the fields into the entry, and returns its format.
func decodeFields(e *raft.Entry, body []byte) (format uint64, err error) {
	for len(body) > 0 {
		field, wire, n := protowire.ConsumeTag(body)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		body = body[n:]
		switch {
		case wire == protowire.VarintType && field != fieldData && field != fieldChecksum:
			var v uint64
			if v, n = protowire.ConsumeVarint(body); n >= 0 {
				if field == fieldFormat {
					format = v
				} else if err := setField(e, field, v); err != nil {
					return 0, err
				}
			}
		case wire == protowire.BytesType && field == fieldData:
			e.Data, n = protowire.ConsumeBytes(body)
		case field <= fieldFormat || field == fieldChecksum:
			return 0, fmt.Errorf("field %d has wire type %d, or is in the wrong place", field, wire)
		default:
			n = protowire.ConsumeFieldValue(field, wire, body)
		}
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		body = body[n:]
	}
	return format, nil
}

func setField(e *raft.Entry, field protowire.Number, v uint64) error {
	switch field {
	case fieldTerm:
		e.ID.Term = v
	case fieldIndex:
		e.ID.Index = v
	case fieldKind:
		if v > math.MaxUint8 {
			return fmt.Errorf("kind %d is out of bounds", v)
		}
		e.Kind = raft.EntryKind(v)
	case fieldTime:
		e.Time = int64(v)
	case fieldSession:
		e.Session = v
	case fieldSequence:
		e.Sequence = v
	case fieldLowWater:
		e.LowWater = v
	}
	return nil
}

// entryFault says what makes an entry one that no leader may make, or "".
func entryFault(e *raft.Entry) string {
	switch {
	case e.ID.Term == 0 || e.ID.Index == 0 || e.ID.Term > MaxIndex || e.ID.Index > MaxIndex:
		return "its log id is out of bounds"
	case e.Kind == 0:
		return "it has no kind"
	case e.Time < 0:
		return "its time is before 1970"
	case e.Session > MaxIndex || e.Sequence > MaxIndex || e.LowWater > MaxIndex:
		return "its session, sequence or low-water mark is out of bounds"
	}
	return ""
}
