package node

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/transport/embednats"
)

func TestOperatorsCallsThatAStopLeavesOverAreAnswered(t *testing.T) {
	server, err := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	conn, err := nats.Connect(server.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
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
