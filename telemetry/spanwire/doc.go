// Package spanwire carries the spans of single requests over NATS to whoever asked for them, so that a trace needs no backend.
//
//	Ask ─▶ tracestate "quorate=wire" travels with the request ─▶ each node's Publisher ─▶ <prefix>.<cluster>.spans ─▶ Collector
//
// Only spans whose trace state has the mark are published, not all that are sampled: a cluster that sends 1 % of its requests to a backend
// sends nothing here, and nobody's curiosity floods NATS. Who may send requests may ask, and gets a message a node for it, of bounded
// size and number: the queue of a Publisher drops spans rather than hold anybody up.
package spanwire
