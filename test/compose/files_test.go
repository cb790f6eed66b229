package compose

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// root of the repository.
const root = "../.."

// project is what the tests look at in a Compose file.
type project struct {
	Services map[string]service `yaml:"services"`
	Volumes  map[string]any     `yaml:"volumes"`
}

type service struct {
	Image       string                    `yaml:"image"`
	Build       *struct{ Context string } `yaml:"build"`
	Command     []string                  `yaml:"command"`
	Ports       []string                  `yaml:"ports"`
	Volumes     []string                  `yaml:"volumes"`
	Environment map[string]string         `yaml:"environment"`
	Healthcheck *struct{ Test []string }  `yaml:"healthcheck"`
}

func composeFiles(t *testing.T) map[string]project {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "compose", "*.yml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no Compose file: %v", err)
	}
	files := map[string]project{}
	for _, path := range paths {
		var p project
		readYAML(t, path, &p)
		files[filepath.Base(path)] = p
	}
	return files
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

var (
	overridable = regexp.MustCompile(`^\$\{[A-Z0-9_]+_IMAGE:-[a-z0-9./-]+:[A-Za-z0-9._-]+\}$`)
	loopback    = regexp.MustCompile(`^127\.0\.0\.1:\$\{[A-Z0-9_]+_PORT-[0-9]+\}:[0-9]+$`)
)

func TestEveryImageAndPortCanBeOverriddenAndNoneIsPublic(t *testing.T) {
	for file, p := range composeFiles(t) {
		for name, s := range p.Services {
			if s.Image != "" && !overridable.MatchString(s.Image) {
				t.Errorf("%s: %s: image %q is not ${SOME_IMAGE:-name:tag}", file, name, s.Image)
			}
			for _, port := range s.Ports {
				if !loopback.MatchString(port) {
					t.Errorf("%s: %s: port %q is not 127.0.0.1:${SOME_PORT-number}:number", file, name, port)
				}
			}
		}
	}
}

func TestEveryMountIsThere(t *testing.T) {
	for file, p := range composeFiles(t) {
		for name, s := range p.Services {
			for _, mount := range s.Volumes {
				source, _, _ := strings.Cut(mount, ":")
				if strings.HasPrefix(source, ".") {
					if _, err := os.Stat(filepath.Join(root, "compose", source)); err != nil {
						t.Errorf("%s: %s: %v", file, name, err)
					}
					if !strings.HasSuffix(mount, ":ro") {
						t.Errorf("%s: %s: %s could be written to", file, name, mount)
					}
				} else if _, ok := p.Volumes[source]; !ok {
					t.Errorf("%s: %s: there is no volume %q", file, name, source)
				}
			}
			if s.Build != nil {
				if _, err := os.Stat(filepath.Join(root, "compose", s.Build.Context, "Dockerfile")); err != nil {
					t.Errorf("%s: %s: %v", file, name, err)
				}
			}
		}
	}
}

// TestEachNodeAndServerHasItsOwnVolumeAndName: a copy of a line that was not adapted would have two nodes in one directory.
func TestEachNodeAndServerHasItsOwnVolumeAndName(t *testing.T) {
	cluster := composeFiles(t)["cluster.yml"]
	for _, name := range nodes {
		s := cluster.Services[name]
		for _, want := range []string{"--id " + name, "--members " + strings.Join(nodes, ","), "--dir /data/" + name} {
			if !strings.Contains(strings.Join(s.Command, " "), want) {
				t.Errorf("%s has no %s in %q", name, want, s.Command)
			}
		}
		if !slices.Contains(s.Volumes, name+":/data") {
			t.Errorf("%s has volumes %q", name, s.Volumes)
		}
		if s.Healthcheck == nil || !slices.Contains(s.Healthcheck.Test, "health") {
			t.Errorf("%s has no health check", name)
		}
		for _, server := range servers {
			if !strings.Contains(s.Environment["NATS_URL"], "nats://"+server+":4222") {
				t.Errorf("%s does not know %s", name, server)
			}
		}
	}
	for _, name := range servers {
		s := cluster.Services[name]
		if !slices.Contains(s.Volumes, name+":/data") || !strings.Contains(strings.Join(s.Command, " "), "--name "+name) {
			t.Errorf("%s has volumes %q and command %q", name, s.Volumes, s.Command)
		}
	}
}

// The services of cluster.yml.
var (
	nodes   = []string{"n1", "n2", "n3"}
	servers = []string{"nats1", "nats2", "nats3"}
)
