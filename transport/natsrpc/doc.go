// Package natsrpc carries the messages between nodes over NATS.
//
// Subjects: <prefix>.<cluster>.raft.<node>.<rpc>.<incarnation> for vote, append and ping, and
// <prefix>.<cluster>.raft.<node>.<rpc> for hello and adopt, which are sent to a name. Answers come back on one inbox
// subscription a node, told apart by a request id.
//
// NATS is at-most-once: loss, duplication after a reconnect, and reordering between connections are normal here. What
// NATS adds is that a request to a subject without a subscriber is answered at once: transport.ErrNoResponders.
package natsrpc
