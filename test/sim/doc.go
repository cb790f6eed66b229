// Package sim is a deterministic simulation of a cluster: the real engines and replicators on a virtual clock, with a network
// that loses, delays, repeats and reorders, disks that forget what was not synced, processes that crash and pause, and
// clients that write and read all the time, some of them exactly once, in sessions of the real table (callers.go). What these saw is
// judged by porcupine at the end (history.go).
//
// A run is a function of its seed. Everything random is drawn from it, and nothing else decides: no wall clock, no map
// order, no goroutine. After each step of a node the oracle checks what Raft promises (invariants.go); at the end all faults are
// healed, and the cluster must elect, commit and catch up within bounded virtual time.
//
//	faults ──▶ world (events by virtual time) ◀── clients
//	              │
//	    process ──┼── process ── process      engine, workers with replicators, inbox, state machine
//	       │      │
//	     disk   network
//
// The process copies the order of the running node: drain the inbox, hand it to the engine, take its output once, write, then
// send.
package sim
