// Package kv is the built-in application of Quorate: a linearizable, durable, multi-version key-value store, its NATS service and
// its Go client.
//
// # The state
//
// Store keeps the versions of every key in a Pebble without a write-ahead log; the Raft log is its log. A key's revision is the
// log index of the entry that wrote it, so revisions need no counter. Versions that a newer one supersedes are kept as long as
// the cluster's setting says (history.go). A snapshot is the whole state and differences on top (layer.go). The layout:
//
//	00 "format"               the format number, in decimal digits
//	00 "last"                 the log id up to which the state goes
//	00 "floor"                the revision below which history may have gaps, 8 bytes
//	00 "swept"                the floor for which all removable history is removed, 8 bytes
//	00 "history"              how many revisions of history are kept, and the floor that earlier settings have left, 8 bytes each
//	00 "system/" <name>       the node's own records (membership, sessions)
//	'k' <key, escaped> 00 01 <8 bytes, big-endian complement of the revision>
//	                          a version: one byte of kind (1 value, 2 tombstone), eight of log time, the value
//
// In a key, 00 is escaped as 00 ff, which keeps the order of keys; versions of a key lie together, the newest first. A batch
// of commands is one Pebble batch together with the position that it reaches, so the state on disk is always that after
// some batch.
//
// # The service
//
// Only the leader subscribes to <prefix>.<cluster>.kv.>, as a NATS micro service named quorate-kv:
//
//	kv.put.<key>   the payload is the value; header Quorate-If-Revision makes it conditional
//	kv.get.<key>   the answer's payload is the value
//	kv.del.<key>
//	kv.batch       many writes in one message (kvpb.BatchRequest); each with its own outcome
//	kv.read        many keys in one message (kvpb.ReadRequest)
//	kv.range       a page of the keys with a prefix (kvpb.RangeRequest)
//	kv.leader      who leads, and the limits (kvpb.Leader)
//
// Every node serves kv.any.read, kv.any.range (in a group) and node.<id>.kv.read and .range. A read is linearizable, unless it asks for another
// consistency, by a field or in the header Quorate-Consistency of a get: local is what the node has; lease is linearizable too, and
// takes no round to a quorum if the node leads and has a lease (node.ReadLease).
//
// Answers carry Quorate-Revision; errors stand in Nats-Service-Error and Nats-Service-Error-Code: 400 bad request, 404 no such
// key, 409 condition not met, 413 too large, 416 history no longer kept, 503 busy or unavailable: this node did nothing, 504 outcome
// unknown. While leadership changes there may be two that lead, or believe so, and each gets every message: after a 503 the other's answer may
// come, and a write is sent again safely with a number or a message id only.
package kv
