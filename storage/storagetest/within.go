package storagetest

import (
	"testing"
	"time"
)

// patience is how long what takes milliseconds may take.
const patience = time.Minute

// Within ends the test if op does not return within a minute: what would hang must not hang the test.
func Within(t testing.TB, what string, op func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		op()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s does not return", what)
	}
}
