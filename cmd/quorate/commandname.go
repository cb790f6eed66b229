package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go"
)

// commandName is how the user can call this program again: what `go run` built is gone when it ends.
func commandName() string {
	executable, err := os.Executable()
	if err != nil {
		return "quorate"
	}
	if strings.Contains(filepath.ToSlash(executable), "/go-build") {
		return "go run ./cmd/quorate"
	}
	if found, err := exec.LookPath("quorate"); err == nil && sameFile(found, executable) {
		return "quorate"
	}
	return os.Args[0]
}

func sameFile(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// devClientFlags are the flags that a client command needs to reach a dev cluster, with a space before each: none if it would
// come to it by itself.
func devClientFlags(url, cluster string) string {
	var flags string
	usual := os.Getenv("NATS_URL")
	if usual == "" {
		usual = nats.DefaultURL
	}
	if url != usual {
		flags += " --nats " + url
	}
	if byDefault, err := clusterOrDefault(""); err != nil || byDefault != cluster {
		flags += " --cluster " + cluster
	}
	return flags
}
