package node

import (
	"context"
	"testing"
	"time"
)

type durableCommit struct{}

func (durableCommit) Wait() error { return nil }

// The engine judges the disk by when it moved, whether or not anybody measures.
func TestTheSyncWaiterSaysWhenAWriteBecameDurable(t *testing.T) {
	items, durable := make(chan syncItem, 1), make(chan timed[uint64], 1)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	waiter := &syncWaiter{items: items, durable: durable, fail: func(err error) { t.Error(err) }}
	go func() {
		defer close(ended)
		waiter.run(ctx)
	}()
	before := time.Now()
	items <- syncItem{seq: 7, commit: durableCommit{}}
	if got := <-durable; got.value != 7 || got.sent.Before(before) || got.sent.After(time.Now()) {
		t.Errorf("got %+v, sent between %v and now", got, before)
	}
	stop()
	<-ended
}
