// Package transport says how nodes talk to each other: the interface that the node is written against, the messages
// that travel, and their encoding.
//
// transport/natsrpc carries them over NATS. transport/memnet carries them in memory, with faults, for tests.
package transport
