// Package waterfall draws the spans of one trace as lines of text: a line a span, its bar to scale, what the answer waited for marked.
//
//	Build ──▶ Trace: the tree, clocks aligned, critical path ──Draw──▶ text
//
// Nodes' clocks differ, and a message cannot arrive before it is sent. So a span below another node's span says between which bounds the
// difference of both clocks lies (clocks.go). Only a clock that breaks its bounds is moved, and the drawing says by how much.
//
// Everything here is pure, and takes spans from strangers: whatever they hold, there is a drawing or an error.
package waterfall
