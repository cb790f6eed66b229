package kv

import (
	"errors"
	"fmt"

	"quorate/node/kv/kvpb"
)

// commandVersion is the version of commands and requests that this package writes and knows.
const commandVersion = 1

// CommandVersion is the Config.CommandVersion of a node whose state machine is a Store: it counts from zero.
const CommandVersion = commandVersion - 1

// Kinds of operations, as they stand in commands.
const (
	opPut    = 1
	opDelete = 2
	// opHistory sets how many revisions of history are kept: its value, 8 bytes, big-endian.
	opHistory = 3
)

// Outcomes of operations, as they stand in results.
const (
	outcomeDone      = 1
	outcomeCondition = 2
	outcomeNotFound  = 3
	outcomeInvalid   = 4
	outcomeDuplicate = 5
)

// errCommand is wrapped by errors about a command that this version cannot apply.
var errCommand = errors.New("unknown command")

// decodeCommand decodes the data of a log entry. The command shares memory with b.
//
// An error here stops the node: to skip what it does not know would let replicas differ. So whatever a client sends is
// checked before it is proposed.
func decodeCommand(b []byte) (*kvpb.Command, error) {
	var c kvpb.Command
	if err := c.UnmarshalVTUnsafe(b); err != nil {
		return nil, fmt.Errorf("%w: %w", errCommand, err)
	}
	if c.Version != commandVersion {
		return nil, fmt.Errorf("%w: version %d, this node knows %d: upgrade it", errCommand, c.Version, commandVersion)
	}
	if err := checkOps(c.Ops); err != nil {
		return nil, fmt.Errorf("%w: %w", errCommand, err)
	}
	return &c, nil
}

func encodeCommand(ops []*kvpb.Op) ([]byte, error) {
	return (&kvpb.Command{Version: commandVersion, Ops: ops}).MarshalVT()
}

// checkOps refuses kinds of operations that are not known.
func checkOps(ops []*kvpb.Op) error {
	for _, op := range ops {
		switch op.Kind {
		case opPut, opDelete:
		case opHistory:
			if revisions, err := decodeRevision(op.Value); err != nil || revisions == 0 {
				return fmt.Errorf("a history of %x revisions", op.Value)
			}
		default:
			return fmt.Errorf("operation kind %d is not known", op.Kind)
		}
	}
	return nil
}

// checkKey refuses keys that the store does not take.
func checkKey[K string | []byte](key K) error {
	if len(key) == 0 {
		return fmt.Errorf("%w: it is empty", ErrInvalidKey)
	}
	if len(key) > MaxKeyBytes {
		return fmt.Errorf("%w: it has %d bytes, the limit is %d", ErrInvalidKey, len(key), MaxKeyBytes)
	}
	return nil
}
