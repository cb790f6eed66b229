package node

import (
	"encoding/json"
	"errors"
	"testing"

	"quorate/node/raft"
	"quorate/storage"
)

// FuzzAdminAnswer: whatever another node answers to an operator's call is an error with words, or none.
func FuzzAdminAnswer(f *testing.F) {
	for _, err := range []error{&NotLeaderError{Leader: "n2"}, &raft.QuorumAtRiskError{Silent: []raft.NodeID{"n3"}}, &UnreachableError{Node: "n5"}, &raft.TransferError{Reason: "too slow"}, ErrBusy} {
		b, failed := json.Marshal(encodeAdminError(err))
		if failed != nil {
			f.Fatal(failed)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"code":"not-leader","details":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var answer adminAnswer
		if json.Unmarshal(b, &answer) != nil {
			return
		}
		err := answer.err()
		if (err == nil) != (answer.Code == "") {
			t.Fatalf("%s is %v", b, err)
		}
		for ; err != nil; err = errors.Unwrap(err) {
			_ = err.Error() // must not panic
		}
	})
}

// FuzzOperatorsCalls: the arguments of a call are what they should be, or ErrConfig.
func FuzzOperatorsCalls(f *testing.F) {
	f.Add([]byte(`{"to":"n2"}`))
	f.Add([]byte(`{"Voters":[{"ID":"n1"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var change MembershipChange
		var to transferArgs
		for _, args := range []any{&change, &to} {
			if err := decodeArgs(b, args); err != nil && !errors.Is(err, ErrConfig) {
				t.Error(err)
			}
		}
	})
}

// FuzzSystemRecords: a record that the state machine or a snapshot hands back is a configuration, or refused.
func FuzzSystemRecords(f *testing.F) {
	record, err := encodeMembershipRecord(raft.MembershipAt{ID: raft.LogID{Term: 1, Index: 2}, Membership: raft.NewMembership(raft.Peer{ID: "n1", Incarnation: 3})})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(record.Value)
	command := raft.Entry{ID: raft.LogID{Term: 1, Index: 2}, Kind: raft.EntryCommand, Data: []byte("x")}
	if err := storage.SealEntry(&command); err != nil {
		f.Fatal(err)
	}
	f.Add(command.Raw)
	f.Add(encodeTimeRecord(-5).Value)
	f.Fuzz(func(t *testing.T, b []byte) {
		at, err := decodeMembershipRecord(SystemRecord{Key: membershipRecord, Value: b})
		if err == nil && at.Membership == nil {
			t.Error("a record without a configuration was taken")
		}
		logTime([]SystemRecord{{Key: timeRecord, Value: b}}) // must not panic
	})
}
