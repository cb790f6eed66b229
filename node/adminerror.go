package node

import (
	"encoding/json"
	"errors"

	"quorate/node/raft"
	"quorate/storage/objectstore"
)

// AdminError is an error of another node's, as it came over the wire. It wraps the error of this package or of package raft that it is one
// of, if it is one that callers tell apart.
type AdminError struct {
	Code    string
	Message string
	kind    error
}

func (e *AdminError) Error() string { return e.Message }
func (e *AdminError) Unwrap() error { return e.kind }

const (
	// codeUnknown comes before every other: that the outcome is unknown matters more than why.
	codeUnknown = "unknown-outcome"
	// codeOther is of errors that a caller need not tell apart.
	codeOther = "other"
)

// adminErrors are the errors that travel by their code alone. The first that fits gives the code.
var adminErrors = []struct {
	code string
	err  error
}{
	{codeUnknown, ErrUnknownOutcome},
	{"lost", ErrLost},
	{"change-pending", raft.ErrChangePending},
	{"setting-pending", raft.ErrSettingPending},
	{"transferring", raft.ErrTransferring},
	{"not-ready", raft.ErrNotReady},
	{"busy", ErrBusy},
	{"no-snapshots", ErrNoSnapshots},
	{"no-object-store", objectstore.ErrUnavailable},
	{"bad-request", ErrConfig},
	{"stopped", ErrStopped},
	{"not-initialized", ErrNotInitialized},
}

// detailed is an error that travels with its fields.
type detailed struct {
	code string
	// in finds the error in another, or returns nil.
	in func(error) error
	// empty is one to decode into.
	empty func() error
}

var adminDetails = []detailed{
	{"not-leader", errorIn[*NotLeaderError], func() error { return &NotLeaderError{} }},
	{"membership-changed", errorIn[*raft.ChangedError], func() error { return &raft.ChangedError{} }},
	{"setting-changed", errorIn[*SettingChangedError], func() error { return &SettingChangedError{} }},
	{"not-caught-up", errorIn[*raft.NotCaughtUpError], func() error { return &raft.NotCaughtUpError{} }},
	{"quorum-at-risk", errorIn[*raft.QuorumAtRiskError], func() error { return &raft.QuorumAtRiskError{} }},
	{"replaced", errorIn[*raft.ReplacedError], func() error { return &raft.ReplacedError{} }},
	{"unreachable", errorIn[*UnreachableError], func() error { return &UnreachableError{} }},
	{"transfer", errorIn[*raft.TransferError], func() error { return &raft.TransferError{} }},
}

func errorIn[T error](err error) error {
	var target T
	if errors.As(err, &target) {
		return target
	}
	return nil
}

func encodeAdminError(err error) adminAnswer {
	answer := adminAnswer{Error: err.Error(), Code: codeOther}
	if errors.Is(err, ErrUnknownOutcome) {
		answer.Code = codeUnknown
		return answer
	}
	for _, d := range adminDetails {
		found := d.in(err)
		if found == nil {
			continue
		}
		if b, err := json.Marshal(found); err == nil {
			answer.Code, answer.Details = d.code, b
			return answer
		}
	}
	for _, known := range adminErrors {
		if errors.Is(err, known.err) {
			answer.Code = known.code
			break
		}
	}
	return answer
}

func (a *adminAnswer) err() error {
	if a.Code == "" {
		return nil
	}
	e := &AdminError{Code: a.Code, Message: a.Error}
	for _, known := range adminErrors {
		if known.code == a.Code {
			e.kind = known.err
		}
	}
	for _, d := range adminDetails {
		if d.code != a.Code {
			continue
		}
		if kind := d.empty(); json.Unmarshal(a.Details, kind) == nil {
			e.kind = kind
		}
	}
	return e
}
