package node

import (
	"errors"
	"testing"

	"quorate/transport"
)

// TestWhatIsTooLargeForTheLeaderHasNoUnknownOutcome: nothing was proposed.
func TestWhatIsTooLargeForTheLeaderHasNoUnknownOutcome(t *testing.T) {
	for name, a := range map[string]transport.Answer{
		"the leader refused it": {Response: &transport.ProposeResponse{Failure: transport.FailureTooLarge}},
		"it was not sent":       {Err: &transport.TooLargeError{To: "n2", Size: 5000, Limit: 4500}},
	} {
		_, err := forwarded(a, 100)
		var tooLarge *TooLargeError
		if !errors.As(err, &tooLarge) || tooLarge.Size != 100 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
