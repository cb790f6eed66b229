package compose

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"quorate/test/procs"
	"quorate/transport/embednats"
)

// Files that name metrics.
var (
	dashboardFile = filepath.Join(root, "compose", "config", "grafana", "dashboards", "quorate.json")
	rulesFile     = filepath.Join(root, "compose", "config", "rules.yml")
)

// dashboard is what the tests look at in a dashboard of Grafana.
type dashboard struct {
	Panels []panel `json:"panels"`
}

type panel struct {
	ID      int    `json:"id"`
	Title   string `json:"title"`
	Type    string `json:"type"`
	GridPos struct{ X, Y, W, H int }
	Targets []struct {
		Expr     string `json:"expr"`
		Exemplar bool   `json:"exemplar"`
	} `json:"targets"`
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// rules are alerts for Prometheus.
type rules struct {
	Groups []struct {
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

func readRules(t *testing.T) rules {
	t.Helper()
	var r rules
	readYAML(t, rulesFile, &r)
	return r
}

// TestDashboardAndAlertsNameMetricsThatNodesHave has two nodes do a little of everything that is counted, and compares what they serve
// with the names of metrics and labels in the files.
func TestDashboardAndAlertsNameMetricsThatNodesHave(t *testing.T) {
	server, err := embednats.Start(embednats.Options{Host: "127.0.0.1", Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	binary, dir := procs.Build(t), t.TempDir()
	var addresses []string
	for _, id := range []string{"n1", "n2"} {
		p := procs.Start(t, id, binary, "serve", "--cluster", "c", "--id", id, "--members", "n1,n2", "--dir", filepath.Join(dir, id),
			"--nats", server.ClientURL(), "--metrics-listen", "127.0.0.1:0")
		addresses = append(addresses, servedAt(t, p))
	}
	conn, err := nats.Connect(server.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	eventually(t, "a write", time.Minute, func() bool {
		_, err := conn.Request("quorate.c.kv.put.k", []byte("v"), time.Second)
		return err == nil
	})
	for _, id := range []string{"n1", "n2"} { // is refused
		if err := conn.Publish("quorate.c.raft."+id+".hello", []byte("garbage")); err != nil {
			t.Fatal(err)
		}
	}

	used := regexp.MustCompile(`\bquorate_[a-z_]+`)
	var missing []string
	eventually(t, "metrics of every name that is used", time.Minute, func() bool {
		has := map[string]bool{}
		for _, address := range addresses {
			for _, name := range regexp.MustCompile(`(?m)^([a-z_]+)[{ ]|[{,]([a-z_]+)="`).FindAllStringSubmatch(scrape(t, address), -1) {
				has[name[1]+name[2]] = true
			}
		}
		missing = nil
		for _, file := range []string{dashboardFile, rulesFile} {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			names := used.FindAllString(string(text), -1)
			if len(names) < 10 {
				t.Fatalf("%s names only %q", file, names)
			}
			for _, name := range names {
				if !has[name] && !slices.Contains(missing, name) {
					missing = append(missing, name)
				}
			}
		}
		return len(missing) == 0
	}, func() { t.Errorf("no node has %q", missing) })
}

// servedAt waits until a node says where it serves its metrics.
func servedAt(t *testing.T, p *procs.Process) string {
	t.Helper()
	said := regexp.MustCompile(`serving /metrics.*address=(\S+)`)
	eventually(t, "the address of /metrics", time.Minute, func() bool { return said.MatchString(p.Output()) })
	return said.FindStringSubmatch(p.Output())[1]
}

// scrape asks as Prometheus does since version 3.
func scrape(t *testing.T, address string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("/metrics: %s %v", response.Status, err)
	}
	return string(body)
}

func TestPanelsLieSideBySide(t *testing.T) {
	taken := map[[2]int]string{}
	ids := map[int]bool{}
	for _, p := range readDashboard(t).Panels {
		if ids[p.ID] {
			t.Errorf("id %d of %q is taken", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%q shows nothing", p.Title)
		}
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%q is too wide", p.Title)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%q lies on %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

func TestEveryAlertSaysWhatToDo(t *testing.T) {
	count := 0
	for _, group := range readRules(t).Groups {
		for _, r := range group.Rules {
			count++
			for _, text := range []string{r.Annotations["summary"], r.Annotations["action"]} {
				if !strings.HasSuffix(text, ".") {
					t.Errorf("%s: %q is not a sentence", r.Alert, text)
				}
			}
			if s := r.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s has severity %q", r.Alert, s)
			}
		}
	}
	if count < 10 {
		t.Errorf("only %d alerts", count)
	}
}

// eventually waits for a condition. If it does not come, that fails the test, after what the others say.
func eventually(t *testing.T, what string, patience time.Duration, condition func() bool, otherwise ...func()) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			for _, say := range otherwise {
				say()
			}
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
