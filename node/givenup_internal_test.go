package node

import (
	"context"
	"errors"
	"testing"
	"time"
)

// Whoever gives up a change before RaftCore has come to it is told so by the context's error alone: then it is not made later.
func TestAChangeThatIsGivenUpIsNotMade(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	n := startAlone(t, t.TempDir(), t.TempDir(), &timesMachine{system: map[string][]byte{}})
	before := n.Status()
	release := hold(ctx, n)
	impatient, giveUp := context.WithCancel(ctx)
	told := make(chan error, 1)
	go func() {
		_, err := n.ChangeSetting(impatient, SettingChange{Lease: new(time.Second)})
		told <- err
	}()
	queued(ctx, t, n, 1)
	giveUp()
	if err := <-told; !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("given up: %v", err)
	}
	release()
	if _, err := n.Propose(ctx, []byte("behind it")); err != nil {
		t.Fatal(err)
	}
	if after := n.Status(); after.Setting != before.Setting {
		t.Errorf("the setting was %+v, and is %+v", before.Setting, after.Setting)
	}

	// RaftCore is at it: what comes of it is not known.
	running, free := make(chan struct{}), make(chan struct{})
	impatient, giveUp = context.WithCancel(ctx)
	go func() {
		_, err := inCore(impatient, n, func(*raftCore) (int, error) { close(running); <-free; return 0, nil })
		told <- err
	}()
	<-running
	giveUp()
	if err := <-told; !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("given up when it had begun: %v", err)
	}
	close(free)
}
