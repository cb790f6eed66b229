package node

import (
	"testing"
	"time"
)

func TestStalenessIsByWhatWasHeardLastAndByBothClocks(t *testing.T) {
	began := time.Now()
	h := &lastHeard{began: began}
	if _, ok := h.ago(began); ok {
		t.Fatal("it heard of nobody yet")
	}
	heard := began.Add(time.Minute)
	h.note(heard)
	if got, ok := h.ago(heard.Add(time.Second)); got != time.Second || !ok {
		t.Errorf("a second later: %v, %t", got, ok)
	}
	h.note(began.Add(time.Second)) // its last leader before it led itself
	if got, ok := h.ago(heard.Add(time.Second)); got != time.Second || !ok {
		t.Errorf("a leader of the past was heard long ago: %v, %t", got, ok)
	}
	for name, passed := range map[string]struct{ monotonic, wall, want time.Duration }{
		"set back":    {time.Second, -time.Hour, time.Second},
		"set forward": {time.Second, time.Hour, time.Hour}, // or the machine slept
		"both agree":  {time.Second, time.Second, time.Second},
	} {
		if got, _ := h.between(time.Minute+passed.monotonic, heard.Add(passed.wall).UnixNano()); got != passed.want {
			t.Errorf("%s: %v, want %v", name, got, passed.want)
		}
	}
}
