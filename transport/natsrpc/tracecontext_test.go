package natsrpc_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"quorate/transport/natsrpc"
)

// TestOnlyAPartOfALongTraceStateTravelsOn: the newest members, in their order, but for large ones.
func TestOnlyAPartOfALongTraceStateTravelsOn(t *testing.T) {
	members := []string{"quorate=wire", "large=" + strings.Repeat("v", 200)}
	for i := range 20 {
		members = append(members, fmt.Sprintf("k%d=%s", i, strings.Repeat("v", 50)))
	}
	for _, c := range []struct{ given, want []string }{
		{members[:3], members[:3]},
		{members, append([]string{members[0]}, members[2:11]...)},
	} {
		state, err := trace.ParseTraceState(strings.Join(c.given, ","))
		if err != nil {
			t.Fatal(err)
		}
		header := nats.Header{}
		sent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, TraceState: state})
		natsrpc.InjectTrace(header, sent)
		got := natsrpc.ExtractTrace(header)
		if got.TraceID() != sent.TraceID() || got.SpanID() != sent.SpanID() || !got.IsSampled() {
			t.Errorf("sent %v, got %v", sent, got)
		}
		if want := strings.Join(c.want, ","); got.TraceState().String() != want {
			t.Errorf("of %d members: %s, want %s", len(c.given), got.TraceState(), want)
		}
	}
}
