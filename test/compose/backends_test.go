package compose

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

// The backends that are built. Jaeger is a build of the OpenTelemetry collector since version 2, with all that compose/config/otelcol.yml
// asks for, so it stands in for that, too. The module's version 1.76 has the command of version 2.13. Grafana cannot be built without its
// frontend, and is not started: its part is that every query of the dashboard has an answer.
const (
	prometheusModule = "github.com/prometheus/prometheus@v0.316.0" // which is 3.16.0
	jaegerModule     = "github.com/jaegertracing/jaeger@v1.76.0"
)

// TestWithBackends follows a write into Jaeger, and asks Prometheus all that the dashboard asks.
func TestWithBackends(t *testing.T) {
	if os.Getenv("QUORATE_COMPOSE") == "" {
		t.Skip("builds Prometheus and Jaeger and runs them in containers, which needs Docker: QUORATE_COMPOSE=1 go test ./test/compose -run WithBackends -v -timeout 40m")
	}
	r := newRunning(t, "cluster.yml", "observe.yml")
	r.drop("observe.yml", "grafana")
	r.backend(jaegerModule, "./cmd/jaeger", "JAEGER_IMAGE", "OTELCOL_IMAGE")
	r.backend(prometheusModule, "-tags remove_all_sd ./cmd/prometheus", "PROMETHEUS_IMAGE")
	r.goBuild("quorate/cmd/quorate")
	r.readme("observe.yml up")
	r.waitHealthy()
	jaeger, prometheus := backend{r, "jaeger:16686"}, backend{r, "prometheus:9090"}

	r.eventually("every target of Prometheus is up", func() bool {
		targets := ask[struct{ ActiveTargets []struct{ Health string } }](prometheus, "/api/v1/targets", nil).ActiveTargets
		return len(targets) == 6 && !slices.ContainsFunc(targets, func(target struct{ Health string }) bool { return target.Health != "up" })
	})
	r.findsTrace(jaeger)
	r.followsExemplar(prometheus, jaeger)
	r.asksDashboard(prometheus)
	r.seesAlerts(prometheus)
}

// drop takes a service out of a file of the copy.
func (r *running) drop(name, service string) {
	r.t.Helper()
	path := filepath.Join(r.dir, "compose", name)
	var file map[string]any
	readYAML(r.t, path, &file)
	services, ok := file["services"].(map[string]any)
	if !ok || services[service] == nil {
		r.t.Fatalf("%s has no service %s", name, service)
	}
	delete(services, service)
	text, err := yaml.Marshal(file)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// backend builds a command of a module, as its own go.mod says, into images that the variables name.
func (r *running) backend(module, pkg string, variables ...string) {
	r.t.Helper()
	dir := filepath.Join(r.dir, "backend", filepath.Base(pkg))
	if err := os.MkdirAll(filepath.Join(dir, "owned"), 0o755); err != nil {
		r.t.Fatal(err)
	}
	dockerfile := "FROM scratch\nCOPY program /\nCOPY --chown=65532:65532 owned /prometheus\nUSER 65532:65532\nENTRYPOINT [\"/program\"]\n"
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		r.t.Fatal(err)
	}
	var downloaded struct{ Dir string }
	if err := json.Unmarshal([]byte(r.must("go mod download -json "+module)), &downloaded); err != nil {
		r.t.Fatal(err)
	}
	r.t.Logf("building %s", module)
	if out, err := r.try(downloaded.Dir, "CGO_ENABLED=0 GOWORK=off go build -o "+dir+"/program "+pkg); err != nil {
		r.t.Fatalf("%v\n%s", err, out)
	}
	for _, variable := range variables {
		r.must("docker build --network none --quiet --tag " + r.names(variable) + " backend/" + filepath.Base(pkg))
	}
}

// backend answers HTTP requests at a service's port.
type backend struct {
	r  *running
	at string
}

// get returns the body of an answer, and whether the status is 200.
func (b backend) get(path string, query url.Values) (string, bool) {
	b.r.t.Helper()
	service, port, _ := strings.Cut(b.at, ":")
	ip := strings.TrimSpace(b.r.must("docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' " + b.r.container(service)))
	client := http.Client{Timeout: time.Minute}
	response, err := client.Get("http://" + ip + ":" + port + path + "?" + query.Encode())
	if err != nil {
		return err.Error(), false
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error(), false
	}
	return string(body), response.StatusCode == http.StatusOK
}

// ask returns the data of an answer of Prometheus or Jaeger; the zero value if there is none yet.
func ask[T any](b backend, path string, query url.Values) (data T) {
	b.r.t.Helper()
	var answer struct{ Data T }
	if body, ok := b.get(path, query); ok {
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			b.r.t.Fatalf("%s answers %v: %.1000s", path, err, body)
		}
	}
	return answer.Data
}

// jaegerTrace is a trace as Jaeger's API tells it.
type jaegerTrace struct {
	TraceID string
	Spans   []struct {
		SpanID, OperationName, ProcessID string
		References                       []struct{ RefType, TraceID, SpanID string }
	}
	Processes map[string]struct {
		Tags []struct {
			Key   string
			Value any
		}
	}
}

// lacks returns what is missing in the trace of a put: a span of every kind, on every node that has such, below a span that is there.
func (trace *jaegerTrace) lacks() string {
	known, seen := map[string]bool{}, map[string]bool{}
	for _, s := range trace.Spans {
		known[s.SpanID] = true
		for _, tag := range trace.Processes[s.ProcessID].Tags {
			if tag.Key == "quorate.node" {
				seen[fmt.Sprint(tag.Value)] = true
			}
		}
		seen[s.OperationName] = true
	}
	for _, s := range trace.Spans {
		for _, ref := range s.References {
			if ref.RefType == "CHILD_OF" && !known[ref.SpanID] {
				return "the parent of " + s.OperationName
			}
		}
	}
	for _, want := range append([]string{"kv.put", "raft.propose", "raft.queue", "raft.append", "raft.replicate", "raft.append_entries", "raft.commit", "raft.apply"}, nodes...) {
		if !seen[want] {
			return want
		}
	}
	return ""
}

// findsTrace wants the whole trace of a put, with all three nodes.
func (r *running) findsTrace(jaeger backend) {
	last := "no trace"
	r.eventually("whole trace of a put in Jaeger", func() bool {
		// Anew each time: the command sends its own span once, when it ends, and the collector may not be there yet.
		r.mustQuorate("n1", "put traced value --timeout 60s")
		query := url.Values{"service": {"quorate"}, "operation": {"kv.put"}, "limit": {"100"}}
		for _, trace := range ask[[]jaegerTrace](jaeger, "/api/traces", query) {
			if last = trace.lacks(); last == "" {
				r.t.Logf("trace %s has %d spans", trace.TraceID, len(trace.Spans))
				return true
			}
		}
		return false
	}, func() { r.t.Errorf("the newest trace lacks %s", last) })
}

// followsExemplar wants a measurement that leads to a trace.
func (r *running) followsExemplar(prometheus, jaeger backend) {
	r.eventually("exemplar whose trace Jaeger has", func() bool {
		r.mustQuorate("n1", "put traced value --timeout 60s")
		now := time.Now()
		for _, series := range ask[[]struct {
			Exemplars []struct{ Labels map[string]string }
		}](prometheus, "/api/v1/query_exemplars", url.Values{
			"query": {"quorate_propose_duration_seconds_bucket"}, "start": {unix(now.Add(-time.Hour))}, "end": {unix(now)},
		}) {
			for _, e := range series.Exemplars {
				if len(ask[[]jaegerTrace](jaeger, "/api/traces/"+e.Labels["trace_id"], nil)) == 1 {
					return true
				}
			}
		}
		return false
	})
}

func unix(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

// asksDashboard puts every query of every panel, over the time in which something happened, and wants values.
func (r *running) asksDashboard(prometheus backend) {
	began := time.Now()
	queries := 0
	for _, p := range readDashboard(r.t).Panels {
		for _, target := range p.Targets {
			queries++
			expr := strings.NewReplacer("$cluster", "compose", "$__rate_interval", "1m").Replace(target.Expr)
			last := ""
			r.eventually(fmt.Sprintf("values for %q", p.Title), func() bool {
				r.mustQuorate("n1", "put watched value --timeout 60s")
				r.mustQuorate("n1", "get watched --timeout 60s")
				query := url.Values{"query": {expr}, "start": {unix(began.Add(-time.Minute))}, "end": {unix(time.Now())}, "step": {"1"}}
				body, ok := prometheus.get("/api/v1/query_range", query)
				last = body
				var answer struct {
					Data struct{ Result []struct{ Values [][2]any } }
				}
				if !ok || json.Unmarshal([]byte(body), &answer) != nil {
					return false
				}
				for _, series := range answer.Data.Result {
					for _, v := range series.Values {
						if v[1] != "NaN" {
							return true
						}
					}
				}
				return false
			}, func() { r.t.Errorf("%s: %.1000s", expr, last) })
		}
	}
	r.t.Logf("%d queries have answers", queries)
}

// seesAlerts wants every rule to be evaluated, none to fire while all is well, and some when the leader's container is gone.
func (r *running) seesAlerts(prometheus backend) {
	type alerts struct {
		Groups []struct {
			Rules []struct{ Name, State, Health, LastError string }
		}
	}
	want := 0
	for _, group := range readRules(r.t).Groups {
		want += len(group.Rules)
	}
	// firing are the alerts that fire; all is whether every rule has been evaluated.
	firing := func() (names []string, all bool) {
		evaluated := 0
		for _, group := range ask[alerts](prometheus, "/api/v1/rules", nil).Groups {
			for _, rule := range group.Rules {
				switch {
				case rule.Health == "ok":
					evaluated++
				case rule.LastError != "":
					r.t.Fatalf("alert %s: %s", rule.Name, rule.LastError)
				}
				if rule.State == "firing" && rule.Name != "QuorateDiskSlow" { // this machine's disk may be slow
					names = append(names, rule.Name)
				}
			}
		}
		return names, evaluated == want
	}
	var names []string
	say := func() { r.t.Errorf("firing: %q", names) }
	r.eventually("all alerts are evaluated, none fires", func() (all bool) {
		names, all = firing()
		return all && len(names) == 0
	}, say)
	leader := r.leader("n1")
	r.must("docker kill " + r.container(leader))
	r.eventually("a dead node is told", func() bool {
		names, _ = firing()
		return slices.Contains(names, "QuorateNodeDown") && slices.Contains(names, "QuorateTargetUnreachable")
	}, say)
	if slices.Contains(names, "QuorateNoLeader") {
		r.t.Errorf("two nodes are left, and firing are %q", names)
	}
	r.must("docker start " + r.container(leader))
	r.waitHealthy()
	r.eventually("nothing is told any more", func() bool {
		names, _ = firing()
		return len(names) == 0
	}, say)
}
