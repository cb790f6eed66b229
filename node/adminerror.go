package node

import (
	"encoding/json"
	"errors"

	"quorate/node/raft"
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

// codeOther is of errors that a caller need not tell apart.
const codeOther = "other"

// adminErrors are the errors that travel by their code alone. The first that fits gives the code: an outcome that is unknown matters more
// than why.
var adminErrors = []struct {
	code string
	err  error
}{
	{"unknown-outcome", ErrUnknownOutcome},
	{"lost", ErrLost},
	{"change-pending", raft.ErrChangePending},
	{"transferring", raft.ErrTransferring},
	{"not-ready", raft.ErrNotReady},
	{"busy", ErrBusy},
	{"no-snapshots", ErrNoSnapshots},
	{"bad-request", ErrConfig},
	{"stopped", ErrStopped},
	{"not-initialized", ErrNotInitialized},
}

// adminDetails are the errors that travel with their fields: by code, what to decode them into.
var adminDetails = []struct {
	code string
	// in finds the error in another.
	in func(error) (error, bool)
	// empty makes one.
	empty func() error
}{
	detailed[*NotLeaderError]("not-leader", func() error { return &NotLeaderError{} }),
	detailed[*raft.ChangedError]("membership-changed", func() error { return &raft.ChangedError{} }),
	detailed[*raft.NotCaughtUpError]("not-caught-up", func() error { return &raft.NotCaughtUpError{} }),
	detailed[*raft.QuorumAtRiskError]("quorum-at-risk", func() error { return &raft.QuorumAtRiskError{} }),
	detailed[*raft.ReplacedError]("replaced", func() error { return &raft.ReplacedError{} }),
	detailed[*UnreachableError]("unreachable", func() error { return &UnreachableError{} }),
	detailed[*raft.TransferError]("transfer", func() error { return &raft.TransferError{} }),
}

func detailed[T error](code string, empty func() error) (d struct {
	code  string
	in    func(error) (error, bool)
	empty func() error
}) {
	d.code, d.empty = code, empty
	d.in = func(err error) (error, bool) {
		var target T
		found := errors.As(err, &target)
		return target, found
	}
	return d
}

func encodeAdminError(err error) adminAnswer {
	answer := adminAnswer{Error: err.Error(), Code: codeOther}
	if errors.Is(err, ErrUnknownOutcome) {
		answer.Code = adminErrors[0].code
		return answer
	}
	for _, d := range adminDetails {
		found, ok := d.in(err)
		if !ok {
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
