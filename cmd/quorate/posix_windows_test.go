package main

import "testing"

func mkfifo(t *testing.T, _ string) {
	t.Helper()
	t.Skip("no FIFOs in directories here")
}

func (p *process) pause() {
	p.t.Helper()
	p.t.Skip("no signal that pauses a process here")
}

func (p *process) resume() {}
