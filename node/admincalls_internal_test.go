package node

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/transport/embednats"
)

// connect connects to a server of the test's own.
func connect(t *testing.T) *nats.Conn {
	t.Helper()
	server, err := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	conn, err := nats.Connect(server.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func TestOperatorsCallsThatAStopLeavesOverAreAnswered(t *testing.T) {
	conn := connect(t)
	asked, err := conn.SubscribeSync("ask")
	if err != nil {
		t.Fatal(err)
	}
	answers, err := conn.SubscribeSync("answers")
	if err != nil {
		t.Fatal(err)
	}
	const patience = 30 * time.Second
	stopped, stop := context.WithCancel(t.Context())
	stop()
	const left = 5
	calls, taken := make(chan adminCall, left), make(chan struct{}, left)
	for range left {
		if err := conn.PublishRequest("ask", "answers", nil); err != nil {
			t.Fatal(err)
		}
		m, err := asked.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		taken <- struct{}{}
		calls <- adminCall{m, func(context.Context, *Node, []byte) (any, error) { return nil, ErrStopped }}
	}
	(&Node{}).answerAdminCalls(stopped, calls, taken)
	for range left {
		m, err := answers.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		var answer adminAnswer
		if err := json.Unmarshal(m.Data, &answer); err != nil || !errors.Is(answer.err(), ErrStopped) {
			t.Errorf("answered %s", m.Data)
		}
	}
}

func TestOperatorsCallsThatComeWhileANodeStopsAreAnswered(t *testing.T) {
	conn := connect(t)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	n := &Node{cfg: Config{Cluster: "test", ID: "n1", Prefix: "quorate"}}
	var group sync.WaitGroup
	if err := (&links{client: conn}).serveAdmin(stopped, n, &group); err != nil {
		t.Fatal(err)
	}
	group.Wait() // who answers has ended, and the connection is still there
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 2 * mostAdminCalls {
		if err := NewAdmin(conn, "quorate", "test").call(ctx, "n1", "heartbeat", nil, nil); !errors.Is(err, ErrStopped) {
			t.Fatal(err)
		}
	}
}
