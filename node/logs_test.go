package node_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"quorate/node"
	"quorate/node/raft"
)

// lines are what nodes log, each a JSON object.
type lines struct {
	mu  sync.Mutex
	all []map[string]any
}

func (l *lines) Write(p []byte) (int, error) {
	var line map[string]any
	if err := json.Unmarshal(bytes.TrimSpace(p), &line); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
	return len(p), nil
}

// with returns the lines whose message begins so.
func (l *lines) with(message string) (found []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.all {
		if strings.HasPrefix(fmt.Sprint(line["msg"]), message) {
			found = append(found, line)
		}
	}
	return found
}

// logging has the nodes of a cluster log to lines, from a level on.
func (c *cluster) logging(level slog.Level) *lines {
	l := &lines{}
	tune := c.tune
	c.tune = func(cfg *node.Config) {
		if tune != nil {
			tune(cfg)
		}
		cfg.Logger = slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: level}))
	}
	return l
}

func TestEachLineSaysWhoseItIsAndInWhichTerm(t *testing.T) {
	c := newCluster(t, "n1", "n2", "n3")
	l := c.logging(slog.LevelDebug)
	c.start("n1", "n2", "n3")
	leader := c.leader()
	if err := leader.TransferLeadership(within(t, 20*time.Second), c.notLeading(leader)); err != nil {
		t.Fatal(err)
	}
	url := c.server.ClientURL()
	var port int
	if _, err := fmt.Sscanf(url[strings.LastIndex(url, ":")+1:], "%d", &port); err != nil {
		t.Fatal(err)
	}
	if err := c.server.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the NATS library's lines", func() bool { return len(l.with("disconnected from NATS")) > 0 })
	c.server = startNATS(t, port)
	waitFor(t, "the nodes to find it again", func() bool { return len(l.with("connected to NATS again")) >= 3 })
	for _, id := range c.members {
		c.stop(id)
	}
	fromPebble, terms := 0, map[any]bool{}
	for _, line := range l.with("") {
		id := raft.NodeID(fmt.Sprint(line["node"]))
		if line["cluster"] != "test" || id != "n1" && id != "n2" && id != "n3" {
			t.Errorf("nobody's: %v", line)
		}
		if line["from"] == "pebble" {
			fromPebble++
		} else if _, ok := line["term"]; !ok && line["msg"] != "connected to NATS" {
			t.Errorf("in no term: %v", line)
		}
		if line["msg"] == "role" {
			terms[line["term"]] = true
		}
	}
	if fromPebble == 0 || len(terms) < 2 {
		t.Errorf("%d lines of Pebble's, roles in terms %v", fromPebble, terms)
	}
}

func TestNoLineForEachRequest(t *testing.T) {
	c := newCluster(t, "n1", "n2", "n3")
	l := c.logging(slog.LevelInfo)
	c.start("n1", "n2", "n3")
	c.fill(nil, 10)
	// Only what is logged for another reason counts against it: an election on a machine that stood still, say.
	before := len(l.with("")) - len(l.with("role"))
	have := c.fill(nil, 500)
	for range 200 {
		if _, err := c.leader().ReadIndex(within(t, 20*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	for id := range c.nodes {
		c.applies(id, "all", func(seen []string) bool { return len(seen) >= len(have) })
	}
	if after := len(l.with("")) - len(l.with("role")); after-before > 10 {
		t.Errorf("%d lines for 700 requests, the last: %v", after-before, l.with("")[after-1])
	}
}

func TestLinesOfWorkThatIsTracedNameItsTrace(t *testing.T) {
	t.Parallel()
	c := newStoringCluster(t, "n1", "n2", "n3")
	spans := recordedBy(c)
	l := c.logging(slog.LevelInfo)
	c.start("n1", "n2", "n3")
	leader := c.leader()
	late := c.notLeading(leader)
	c.stop(late)
	c.fill(nil, 200)
	c.purged(leader.Config().ID, 100)
	c.start(late)
	for message, span := range map[string]string{
		"snapshot complete": "raft.snapshot.build", "fetching a snapshot": "raft.snapshot.offer", "snapshot installed": "raft.snapshot.install",
	} {
		waitFor(t, "a line of "+message, func() bool { return len(l.with(message)) > 0 })
		line := l.with(message)[0]
		waitFor(t, fmt.Sprintf("the span %s of %v", span, line), func() bool {
			for _, s := range spans.GetSpans() {
				if s.Name == span && s.SpanContext.TraceID().String() == line["trace_id"] {
					return true
				}
			}
			return false
		})
	}
}
