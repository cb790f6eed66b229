// Package storage says how a node keeps its log, its vote and its identity: the interfaces that the node is written
// against, and the encoding of log entries, which is the same on every disk and wire.
//
// The one implementation is storage/pebblelog; storage/storagetest is the suite that any implementation must pass.
package storage
