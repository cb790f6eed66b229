package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"quorate/node/kv"
)

// Spans of all nodes come over NATS, and what they wait for is drawn.
func TestTraceShowsAWriteOnEveryNode(t *testing.T) {
	c := startOperated(t)
	out := c.must("trace", "put", "greeting", "hello")
	if !regexp.MustCompile(`^revision \d+, trace [0-9a-f]{32}\n`).MatchString(out) {
		t.Errorf("the result is not said first:\n%s", out)
	}
	for _, want := range []string{
		`(?m)^\* kv\.put +client `,
		`(?m)^\* +kv\.put +n[123] `,
		`(?m)^\* +raft\.propose +n[123] `,
		`(?m)^. +raft\.queue +n[123] RaftCore`,
		`(?m)^. +raft\.replicate +n[123] `,
		`critical path:`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no line matches %s in\n%s", want, out)
		}
	}
	for _, id := range []string{"n1", "n2", "n3"} {
		if !regexp.MustCompile(`(?m)^. +raft\.\S+ +` + id + ` `).MatchString(out) {
			t.Errorf("no span of %s in\n%s", id, out)
		}
	}
	if strings.Contains(out, "not collected") {
		t.Errorf("spans are missing:\n%s", out)
	}
	if out := c.must("trace", "get", "greeting"); !regexp.MustCompile(`(?m)^\* kv\.get +client `).MatchString(out) || !strings.Contains(out, "5 bytes") {
		t.Errorf("trace get:\n%s", out)
	}
}

// The JSON form is that of OTLP: hexadecimal ids, the node's id an attribute of the resource.
func TestTraceAsJSONIsOTLP(t *testing.T) {
	c := startOperated(t)
	out := c.must("trace", "put", "greeting", "hello", "--output", "json")
	var got struct {
		ResourceSpans []struct {
			Resource struct {
				Attributes []struct {
					Key   string
					Value struct{ StringValue string }
				}
			}
			ScopeSpans []struct {
				Spans []struct {
					TraceID string `json:"traceId"`
					SpanID  string `json:"spanId"`
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	nodes := map[string]bool{}
	for _, r := range got.ResourceSpans {
		for _, attribute := range r.Resource.Attributes {
			if attribute.Key == "quorate.node" {
				nodes[attribute.Value.StringValue] = true
			}
		}
		for _, scope := range r.ScopeSpans {
			for _, s := range scope.Spans {
				if len(s.TraceID) != 32 || len(s.SpanID) != 16 {
					t.Errorf("ids %q and %q are not hexadecimal", s.TraceID, s.SpanID)
				}
			}
		}
	}
	if !nodes["n1"] || !nodes["n2"] || !nodes["n3"] {
		t.Errorf("want resources of n1, n2 and n3, got %v", nodes)
	}
}

func TestTraceSaysWhatItWants(t *testing.T) {
	wantStatus(t, statusUsage, "put or get", "trace")
}

// TestTraceThatIsNotShownSaysWhatWasDone: who interrupts it while spans are waited for must not think that nothing was written.
func TestTraceThatIsNotShownSaysWhatWasDone(t *testing.T) {
	url := startNATS(t)
	for _, c := range []struct {
		why       string
		interrupt bool
		stdout    io.Writer
		want      int
	}{
		{"interrupted", true, io.Discard, statusInterrupted},
		{"no space left on device", false, fullDisk{errors.New("no space left on device")}, statusFailed},
	} {
		ctx, interrupt := context.WithCancelCause(t.Context())
		a := &app{stdout: c.stdout, stderr: io.Discard, output: outputText}
		flags := &clientFlags{nats: natsFlags{url: url}, cluster: "c", timeout: patience}
		err := a.trace(ctx, flags, func(ctx context.Context, client *kv.Client) (string, error) {
			short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			defer cancel()
			_, _ = client.Get(short, "k") // nobody answers, which is a span too
			if c.interrupt {
				interrupt(errInterrupted)
			}
			return "revision 7", nil
		})
		if err == nil || !strings.Contains(err.Error(), "revision 7") || !strings.Contains(err.Error(), c.why) || exitStatus(ctx, err) != c.want {
			t.Errorf("want an error that says that revision 7 was written and %q, and exit status %d, got %d: %v", c.why, c.want, exitStatus(ctx, err), err)
		}
		interrupt(nil)
	}
}
