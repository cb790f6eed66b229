// Package chaos torments a cluster of real processes over a real NATS server: nodes are killed, all at once too, and paused, their connections
// are cut or held in one direction or both, NATS is restarted, leadership is handed on, members are replaced, disks are lost, and the cluster's setting
// changes, while clients write and read. What these saw must be linearizable (history.go), each fault that ends must leave a cluster that takes writes
// again, and at the end all nodes must have the same keys.
//
// A short run is part of `go test ./...`. A long one, with the nodes under the race detector if -nodes-race is given:
//
//	go test ./test/chaos -v -timeout 2h -args -seed 7 -faults 500
//
// The seed decides which faults come in which order and what clients do; when things happen is up to the machine, so a run is not
// repeated to the letter.
package chaos
