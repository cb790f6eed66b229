package transport

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"quorate/node/raft"
)

var ours, theirs = raft.ClusterID{1}, raft.ClusterID{2}

// gates are those of two nodes, and the log of the second one.
func gates() (sender, receiver *Gate, log *bytes.Buffer) {
	log = &bytes.Buffer{}
	return NewGate(alice, 1, slog.New(slog.DiscardHandler)), NewGate(bob, 2, slog.New(slog.NewTextHandler(log, nil))), log
}

func sent(t *testing.T, g *Gate, message any) []byte {
	t.Helper()
	b, err := g.Encode(nil, message)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRequestPassesTheGate(t *testing.T) {
	sender, receiver, _ := gates()
	sender.SetCluster(ours)
	receiver.SetCluster(ours)
	from, req, answer := receiver.Receive(sent(t, sender, &raft.VoteRequest{Term: 4, Candidate: alice}))
	if vote, ok := req.(*raft.VoteRequest); !ok || vote.Term != 4 || from != alice || answer != nil {
		t.Fatalf("got %v from %v, answer %v", req, from, answer)
	}
	back := sender.Answer(sent(t, receiver, &raft.VoteResponse{Term: 4, Granted: true}), time.Unix(7, 0))
	resp, ok := back.Response.(*raft.VoteResponse)
	if !ok || !resp.Granted || resp.From != bob || back.Boot != 2 || back.Arrived != time.Unix(7, 0) || back.Err != nil {
		t.Fatalf("got %+v", back)
	}
}

func TestPingIsAnsweredAtTheGate(t *testing.T) {
	sender, receiver, _ := gates()
	sender.SetCluster(ours)
	receiver.SetCluster(ours)
	_, req, answer := receiver.Receive(sent(t, sender, &PingRequest{}))
	if pong, ok := answer.(*PingResponse); !ok || req != nil || pong.From != bob {
		t.Fatalf("got %v, answer %v", req, answer)
	}
}

func TestGateRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		sender, receiver *raft.ClusterID
		message          any
		want             string
	}{
		"another cluster":    {&theirs, &ours, &PingRequest{}, ReasonCluster},
		"before the genesis": {&ours, nil, &PingRequest{}, ReasonNoCluster},
		"without a cluster":  {nil, &ours, &raft.AppendRequest{Leader: alice}, ReasonCluster},
		"what is no request": {&ours, &ours, &PingResponse{}, ReasonMalformed},
		"hello is for all":   {nil, nil, &HelloRequest{}, ""},
		"hello of another":   {&theirs, &ours, &HelloRequest{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			sender, receiver, _ := gates()
			if c.sender != nil {
				sender.SetCluster(*c.sender)
			}
			if c.receiver != nil {
				receiver.SetCluster(*c.receiver)
			}
			_, req, answer := receiver.Receive(sent(t, sender, c.message))
			if c.want == "" {
				if req == nil || answer != nil {
					t.Fatalf("refused with %v", answer)
				}
				return
			}
			refusal, ok := answer.(*Refusal)
			if !ok || refusal.Reason != c.want || req != nil || receiver.Refused()[c.want] != 1 {
				t.Fatalf("got %v, answer %v, counted %v; want %q", req, answer, receiver.Refused(), c.want)
			}
		})
	}
}

// Whatever answers is somebody: an answer that is not understood is an error at once, not a silence.
func TestBadAnswersAreErrors(t *testing.T) {
	sender, receiver, _ := gates()
	sender.SetCluster(theirs)
	receiver.SetCluster(ours)
	var refused *RefusedError
	if a := receiver.Answer(sent(t, sender, &Refusal{Reason: "busy"}), time.Now()); !errors.As(a.Err, &refused) || refused.From != alice.ID || a.Boot != 1 {
		t.Errorf("refusal: %+v", a)
	}
	for reason, b := range map[string][]byte{
		ReasonCluster:   sent(t, sender, &PingResponse{}),
		ReasonMalformed: []byte("rubbish"),
		ReasonVersion:   {8, 9}, // version 9
	} {
		a := receiver.Answer(b, time.Now())
		var message *MessageError
		if !errors.As(a.Err, &message) || message.Reason != reason || a.Response != nil || receiver.Refused()[reason] != 1 {
			t.Errorf("%s: %+v, counted %v", reason, a, receiver.Refused())
		}
	}
}

func TestRefusalsAreLoggedAtALimitedRate(t *testing.T) {
	_, receiver, log := gates()
	for range 1000 {
		receiver.Receive([]byte("rubbish"))
	}
	if lines := strings.Count(log.String(), "refused a message"); lines != 1 || receiver.Refused()[ReasonMalformed] != 1000 {
		t.Fatalf("%d lines for %v", lines, receiver.Refused())
	}
}
