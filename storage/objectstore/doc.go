// Package objectstore keeps snapshots of one cluster as a manifest and parts, in a NATS Object Store bucket, in a directory, or in
// one backup file.
//
//	state machine's stream
//	───────────────────────────────────────────────►
//	│ 8..32 MiB │  8..32 MiB   │ 8..32 MiB │ ...         cut where the content says (see cutter)
//	      │             │            │
//	    zstd          zstd         zstd
//	      ▼             ▼            ▼
//	 part-<sha256>  part-<sha256>  part-<sha256>         blobs, named by the digest of what is stored
//	      ▲             ▲            ▲
//	      └─────────────┴────────────┴── manifest-<index>-<term>-<digest>    written last
//
// A part that is there already is not sent again, and a stream is cut by its content, so that the next snapshot of a mostly
// unchanged state is small. A manifest may also name the layers of an earlier one: a whole state, then what changed since. The node's own
// records (sessions above all) stand in the manifest, or, if they are large, in a stream of their own: see ReadMeta.
//
// Whoever holds a storage.SnapshotRef can verify everything that it leads to: the reference has the manifest's digest, the
// manifest each part's. Nothing from a store is trusted: what does not fit its digest is a *DamagedError. A manifest is written
// after all its parts, and deleted before them, so a snapshot that can be seen was complete.
//
// One huge object is no option: nats.go's ObjectStore.Put keeps up to 4,000 chunks in flight and publishes the object's
// description without waiting for them; see Bucket for what is done instead.
package objectstore
