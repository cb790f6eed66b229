//go:build !windows

package main

import (
	"syscall"
	"testing"
)

func mkfifo(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

// pause has the process do nothing until resume.
func (p *process) pause() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
}

func (p *process) resume() {
	p.t.Helper()
	p.signal(syscall.SIGCONT)
}
