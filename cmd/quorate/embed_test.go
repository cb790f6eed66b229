package main

import "testing"

func TestHostPort(t *testing.T) {
	for address, want := range map[string]int{"127.0.0.1:4222": 4222, ":4222": 4222, "[::1]:0": -1} {
		if _, port, err := splitHostPort("--listen", address); err != nil || port != want {
			t.Errorf("%s: port %d, %v; want %d", address, port, err, want)
		}
	}
	for _, address := range []string{"", "4222", "host", "host:x", "host:65536", "a:b:1"} {
		if _, _, err := splitHostPort("--listen", address); exitStatus(t.Context(), err) != statusUsage {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestLoopback(t *testing.T) {
	for address, want := range map[string]bool{"127.0.0.1:1": true, "[::1]:1": true, "localhost:1": true, ":1": false, "0.0.0.0:1": false, "10.0.0.1:1": false} {
		if got := isLoopback(address); got != want {
			t.Errorf("%s: loopback %t, want %t", address, got, want)
		}
	}
}

func TestMaxPayload(t *testing.T) {
	for s, want := range map[string]int{"1MiB": 1 << 20, "1048576": 1 << 20, "64KiB": 64 << 10, "64MiB": 64 << 20} {
		if got, err := parseMaxPayload(s); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "x", "1", "-1MiB", "65MiB", "8EB"} {
		if got, err := parseMaxPayload(s); err == nil {
			t.Errorf("%q: %d, want an error", s, got)
		}
	}
}
