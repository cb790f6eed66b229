package node_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// A node runs so many calls at a time and refuses more; when it is closed, calls that still run end with it.
func TestOperatorsCallsAreBoundedAndEndWithTheirNode(t *testing.T) {
	c := newStoringCluster(t, "n1")
	c.tune = nil
	c.start("n1")
	c.fill(nil, 3)
	n := c.nodes["n1"]
	conn, err := nats.Connect(c.server.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	begun := c.states["n1"].hang()

	inbox := conn.NewRespInbox()
	answers := make(chan *nats.Msg, 100)
	if _, err := conn.ChanSubscribe(inbox, answers); err != nil {
		t.Fatal(err)
	}
	const calls, most = 70, 64
	for range calls {
		if err := conn.PublishRequest("quorate.test.node.n1.snapshot", inbox, nil); err != nil {
			t.Fatal(err)
		}
	}
	ctx := within(t, 30*time.Second)
	for range calls - most {
		select {
		case m := <-answers:
			var answer struct{ Code string }
			if err := json.Unmarshal(m.Data, &answer); err != nil || answer.Code != "busy" {
				t.Fatalf("answered %s", m.Data)
			}
		case <-ctx.Done():
			t.Fatal("a call too many is not refused")
		}
	}
	<-begun
	if err := n.Close(ctx); err != nil {
		t.Fatal(err)
	}
	delete(c.nodes, "n1")
}
