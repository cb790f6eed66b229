package node

import (
	"testing"
	"time"
)

func TestAMachineThatSleptIsFoundOut(t *testing.T) {
	var k clock
	for _, pass := range []struct {
		wall, monotonic time.Duration
		want            bool
	}{
		{0, 0, false},
		{time.Second, time.Second, false},
		{2*time.Second + clockSlip, 2 * time.Second, false}, // kept right, slowly
		{3*time.Second + 2*clockSlip, 3 * time.Second, false},
		{9 * time.Second, 3*time.Second + 1, true},           // slept for six seconds
		{10 * time.Second, 4*time.Second + 1, false},         // and is awake
		{2 * time.Second, 5 * time.Second, false},            // set back
		{2*time.Second + 2*clockSlip, 5 * time.Second, true}, // and forward again
	} {
		if got := k.gained(pass.wall, pass.monotonic); got != pass.want {
			t.Errorf("%+v: %t", pass, got)
		}
	}
	now := time.Now()
	k = clock{began: now}
	if k.slept(now.Add(time.Hour)) { // both clocks go on
		t.Error("an hour went by, and it takes that for sleep")
	}
}
