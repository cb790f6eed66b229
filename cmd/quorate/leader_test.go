package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// Whoever waited in vain is told what the nodes said, or that there are none, however the waiting and the asking meet.
func TestWaitingForALeaderInVainSaysWhy(t *testing.T) {
	t.Setenv("NATS_URL", startNATS(t))
	for i := range 5 {
		timeout := time.Second + time.Duration(i)*20*time.Millisecond
		wantStatus(t, statusUnavailable, "no node answers", "leader", "--wait", "--cluster", "nobody", "--timeout", fmt.Sprint(timeout))
	}
}

// Nor is it said of a server that refuses connections only that there was no answer in time, if the last attempt was under way then.
func TestAnAttemptThatIsCutOffHidesNoReason(t *testing.T) {
	refused, late := fmt.Errorf("connect: %w", nats.ErrNoServers), fmt.Errorf("connect: %w", context.DeadlineExceeded)
	for _, c := range []struct{ before, now, want error }{
		{nil, late, late}, {nil, refused, refused}, {late, refused, refused}, {refused, late, refused}, {refused, nil, nil},
	} {
		if got := tellingMore(c.before, c.now); got != c.want {
			t.Errorf("%v, then %v: it says %v", c.before, c.now, got)
		}
	}
}
