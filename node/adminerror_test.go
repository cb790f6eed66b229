package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"quorate/node/raft"
)

// What a caller would tell apart can be told apart on the other side of the wire, and its words arrive as they were.
func TestErrorsOfOperatorsCallsKeepTheirKind(t *testing.T) {
	over := func(err error) error {
		t.Helper()
		b, failed := json.Marshal(encodeAdminError(fmt.Errorf("change: %w", err)))
		if failed != nil {
			t.Fatal(failed)
		}
		var answer adminAnswer
		if failed := json.Unmarshal(b, &answer); failed != nil {
			t.Fatal(failed)
		}
		if got := answer.err(); got.Error() != "change: "+err.Error() {
			t.Errorf("%q arrived as %q", err, got)
		}
		return answer.err()
	}
	for _, known := range adminErrors {
		got := over(known.err)
		for _, other := range adminErrors {
			if errors.Is(got, other.err) != (other.code == known.code) {
				t.Errorf("%v: is %v: %t", known.err, other.err, errors.Is(got, other.err))
			}
		}
	}
	for _, want := range []error{
		&NotLeaderError{Leader: "n2"}, &raft.ChangedError{Current: raft.LogID{Term: 3, Index: 7}},
		&SettingChangedError{Current: raft.LogID{Term: 3, Index: 8}},
		&raft.NotCaughtUpError{Peer: raft.Peer{ID: "n4"}, Behind: 9}, &raft.QuorumAtRiskError{Silent: []raft.NodeID{"n3"}},
		&raft.ReplacedError{Old: raft.Peer{ID: "n4"}}, &UnreachableError{Node: "n5"}, &raft.TransferError{Reason: "too slow"},
	} {
		got := reflect.New(reflect.TypeOf(want))
		if !errors.As(over(want), got.Interface()) || !reflect.DeepEqual(got.Elem().Interface(), want) {
			t.Errorf("%#v arrived as %#v", want, got.Elem().Interface())
		}
	}
	if err := over(errors.New("something else")); errors.Unwrap(err) != nil {
		t.Errorf("%v wraps %v", err, errors.Unwrap(err))
	}
}
