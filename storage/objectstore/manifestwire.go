package objectstore

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"quorate/storage"
)

// Fields of the manifest's form, and of a layer's and a record's.
const (
	wireFormat     = 1
	wireMembership = 4
	wireSystem     = 6
	wireLayers     = 7
	wireRecords    = 9
	wireParts      = 4
)

const (
	// minWirePart is a part's digest, with its tag and length.
	minWirePart = sha256.Size + 2
	// minWireRecord is the shortest key, with its tag and length.
	minWireRecord = minSystemKey + 2
	// maxMembershipBytes is more than any entry has.
	maxMembershipBytes = 1 << 20
)

// checkWire looks at a manifest before it is decoded: an empty message takes two bytes there, and seventy times that in memory. So whatever may
// come in any number must have a size that makes up for what it costs.
func checkWire(b []byte) error {
	layers := 0
	return eachField(b, func(field protowire.Number, number uint64, value []byte) error {
		switch {
		case field == wireFormat && number > manifestFormat:
			return fmt.Errorf("format %d is not known here: %w", number, storage.ErrNewer)
		case field == wireMembership && len(value) > maxMembershipBytes:
			return fmt.Errorf("a membership of %d bytes", len(value))
		case field == wireSystem && len(value) < minWireRecord:
			return fmt.Errorf("a system record of %d bytes", len(value))
		case field == wireRecords:
			return checkWirePart(value)
		case field == wireLayers:
			if layers++; layers > maxLayers {
				return fmt.Errorf("more than %d layers", maxLayers)
			}
			return eachField(value, func(field protowire.Number, _ uint64, value []byte) error {
				if field != wireParts {
					return nil
				}
				return checkWirePart(value)
			})
		}
		return nil
	})
}

func checkWirePart(b []byte) error {
	if len(b) < minWirePart {
		return fmt.Errorf("a part that is described in %d bytes", len(b))
	}
	return nil
}

// eachField calls f for each field of a message, with its number or its bytes.
func eachField(b []byte, f func(field protowire.Number, number uint64, value []byte) error) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var number uint64
		var value []byte
		switch kind {
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(b)
		case protowire.StartGroupType, protowire.EndGroupType:
			return errors.New("it has a group")
		default:
			n = protowire.ConsumeFieldValue(field, kind, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(field, number, value); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
