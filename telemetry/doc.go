// Package telemetry makes what a node does visible through OpenTelemetry: spans for the way of one request through goroutines,
// channels and NATS, and the set-up by the OTEL_* environment variables.
//
// A *Telemetry that is nil is off: every method of it does nothing. What is not sampled carries a zero Span through the channels, costs a
// comparison where it would be recorded, and allocates nothing; so does whoever asks for a span below a parent that is not sampled.
package telemetry
