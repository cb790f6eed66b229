package kv_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/node/kv"
	"quorate/node/kv/kvpb"
)

func busy() ([]byte, error) { return nil, &kv.RequestError{Code: "503", Description: "busy"} }

// TestAWriteThatABusyLeaderRefusedKeepsItsNumber: another one that got it too may have done it, and its answer is lost.
func TestAWriteThatABusyLeaderRefusedKeepsItsNumber(t *testing.T) {
	for name, options := range map[string][]kv.ClientOption{"of a session": nil, "by an id": {kv.WithMessageIDs()}} {
		t.Run(name, func(t *testing.T) {
			c := startCluster(t)
			c.play(map[string]func() ([]byte, error){
				"leader": played().MarshalVT, "session": (&kvpb.SessionResponse{Session: 7}).MarshalVT, "batch": busy,
			})
			type number struct {
				session, sequence uint64
				id                string
			}
			var mu sync.Mutex
			var numbers []number
			conn := c.connect()
			if _, err := conn.Subscribe("quorate.test.kv.batch", func(m *nats.Msg) {
				var r kvpb.BatchRequest
				if err := r.UnmarshalVT(m.Data); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if numbers = append(numbers, number{r.Session, r.Sequence, r.MessageId}); len(numbers) > 1 {
					b, _ := (&kvpb.BatchResponse{Ops: []*kvpb.OpOutcome{{Status: 1, Revision: 9}}, Leader: played()}).MarshalVT()
					_ = m.Respond(b)
				}
			}); err != nil {
				t.Fatal(err)
			}
			if err := conn.Flush(); err != nil {
				t.Fatal(err)
			}
			if revision, err := c.client(options...).Put(within(t, 20*time.Second), "k", nil); err != nil || revision != 9 {
				t.Errorf("revision %d, error %v", revision, err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, n := range numbers {
				if n != numbers[0] {
					t.Errorf("one write was sent as %+v", numbers)
				}
			}
		})
	}
}

// TestTheAnswerAfterThatOfABusyLeader: of two that got a message, the first to answer did nothing, the other one did it. There is no number under which
// the write could be sent again.
func TestTheAnswerAfterThatOfABusyLeader(t *testing.T) {
	c := startCluster(t)
	var sent atomic.Int64
	refused := make(chan struct{}, 2)
	refuse := func() ([]byte, error) { sent.Add(1); refused <- struct{}{}; return busy() }
	c.play(map[string]func() ([]byte, error){"batch": refuse, "read": refuse})
	after := func(answer func() ([]byte, error)) func() ([]byte, error) {
		return func() ([]byte, error) { <-refused; return answer() }
	}
	c.play(map[string]func() ([]byte, error){
		"leader": played().MarshalVT,
		"batch":  after((&kvpb.BatchResponse{Ops: []*kvpb.OpOutcome{{Status: 1, Revision: 9}}, Leader: played()}).MarshalVT),
		"read":   after((&kvpb.ReadResponse{Leader: played(), Node: "n1", Versions: []*kvpb.Version{{Key: []byte("k"), Revision: 9}}}).MarshalVT),
	})
	client := c.client(kv.WithoutSession())
	if revision, err := client.Put(within(t, 20*time.Second), "k", nil); err != nil || revision != 9 {
		t.Errorf("revision %d, error %v", revision, err)
	}
	if entry, err := client.Get(within(t, 20*time.Second), "k"); err != nil || entry.Revision != 9 {
		t.Errorf("%+v %v", entry, err)
	}
	if n := sent.Load(); n != 2 {
		t.Errorf("a write and a read were sent as %d messages", n)
	}
}

// TestBusyIsAnUnknownOutcome: that one leader did nothing does not say that none did.
func TestBusyIsAnUnknownOutcome(t *testing.T) {
	for name, options := range map[string][]kv.ClientOption{"session": nil, "id": {kv.WithMessageIDs()}, "neither": {kv.WithoutSession()}} {
		c := startCluster(t)
		c.play(map[string]func() ([]byte, error){
			"leader": played().MarshalVT, "session": (&kvpb.SessionResponse{Session: 7}).MarshalVT, "batch": busy,
		})
		if _, err := c.client(options...).Put(within(t, 300*time.Millisecond), "k", nil); !errors.Is(err, kv.ErrUnknownOutcome) || errors.Is(err, kv.ErrUnavailable) {
			t.Errorf("with %s: %v", name, err)
		}
	}
}
