package main

import (
	"fmt"
	"testing"
	"time"
)

// Whoever waited in vain is told what the nodes said, or that there are none, however the waiting and the asking meet.
func TestWaitingForALeaderInVainSaysWhy(t *testing.T) {
	t.Setenv("NATS_URL", startNATS(t))
	for i := range 5 {
		timeout := time.Second + time.Duration(i)*20*time.Millisecond
		wantStatus(t, statusUnavailable, "no node answers", "leader", "--wait", "--cluster", "nobody", "--timeout", fmt.Sprint(timeout))
	}
}
