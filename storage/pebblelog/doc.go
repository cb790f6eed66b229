// Package pebblelog keeps a node's log, vote and identity in Pebble.
//
// # Layout
//
// One Pebble may hold several groups (the logs of nodes of several clusters), each under a prefix of its own:
//
//	00 "format"                      the format number of this layout, in decimal digits
//	01 <length> <group name> 'i'     identity
//	01 <length> <group name> 'g'     genesis
//	01 <length> <group name> 'v'     vote
//	01 <length> <group name> 'p'     the newest purged log id
//	01 <length> <group name> 'e' <8 bytes, big-endian index>   entry, sealed with its checksum (package storage)
//
// # Life of a write
//
// A write (vote, truncation, entries) is one Pebble batch, so a crash leaves all of it or nothing. It is applied without
// waiting for the disk; the fsync is awaited by whoever holds the storage.Commit. Pebble syncs its write-ahead log in order and for
// many batches at once, so writes become durable in the order they were made. When Pebble opens, it replays that log into
// tables and syncs them, so whatever a reader sees after a restart is durable.
//
// Recent entries stay in a bounded window in memory, so that workers, which read what was just written, do not read the disk.
// Purge and truncate are range deletes.
//
// # When the disk fails
//
// The first failed write or fsync is the last: Wait, and every later write, returns it, Options.OnFatal is called once, and nothing
// more reaches the disk, while Pebble is kept from ending the program over it (failstop.Open). There is no way back but to close the
// store and open the directory again, which checks it.
//
// Damage is refused, never repaired in silence: of the write-ahead log by durable marks (durableMark), of the records and the newest
// entries when a log is opened, of older entries when they are read.
package pebblelog
