// Package node runs a Raft consensus node whose network is NATS: Start replicates your StateMachine.
//
// # The life of a write
//
// Propose puts the command into the api channel, with a channel of its own for the reply. RaftCore, the one goroutine
// that owns all Raft state, takes it together with whatever else waits, and hands all of it to the engine (package raft),
// which gives the entries their places in the log. RaftCore encodes each entry once, with its checksum, and gives
// the log store one batch. Then two things happen at the same time:
//
//   - The sync waiter waits until the batch is on this node's disk, and tells RaftCore through the durable channel.
//   - Each replication worker, told of the newest log id through its target channel, reads the new entries from the log's
//     window in memory and sends them, the very bytes that went to disk, over NATS. The follower's RaftCore checks them,
//     writes them, and answers when its own sync waiter says that they are on disk. The worker reports the matched log id
//     through the progress channel.
//
// When a majority has the entry on disk, the engine commits it. When it is on the leader's own disk too, RaftCore
// applies it to the state machine and sends the machine's result into the reply channel.
//
// Nothing is acknowledged before it is on a majority of the disks, and no answer to a peer leaves before what it
// says is on disk: the engine holds it back until then. Nothing blocks RaftCore: every channel into it is bounded, so that
// whoever sends waits instead; those out of it hold the newest value only.
//
// # The life of a lease read
//
// A linearizable read asks a quorum who leads. Where the cluster has agreed on leases (setting.go), the answers to the leader's own messages say
// so in advance: each voter that answered has promised, from the arrival of the message on, to help nobody else to lead for the time of a lease.
// The leader counts from the sending, and less a tenth for clocks that run at another pace. At the begin of each pass's work RaftCore
// publishes until when that holds, and the commit index (lease.go), before it answers, applies or sends anything: nobody has heard of a
// later commit, and no voter is released by a transfer, while an earlier publication stands.
//
// ReadLease takes what is published, then reads the clock, and then the applied index. If the time is not over and all that is committed is
// applied, the read needs no goroutine but the caller's. A caller that was paused finds the time over; a RaftCore that stands still
// publishes nothing more, so that its last lease ends by itself; a machine that slept finds its two clocks apart. If only the state machine is
// behind, RaftCore waits for it, as for any read, and without a lease it asks the quorum.
//
// # Goroutines
//
//	RaftCore            core.go        one; the only writer of log, vote and state machine
//	replication worker  worker.go      one a target, while this node leads; reads the log, writes nothing
//	sync waiter         syncwaiter.go  one; waits for fsync
//	snapshot builder    builder.go     at most one; reads a view of the state, fills the object store, ends
//	snapshot fetcher    fetcher.go     at most one; brings a snapshot here and prepares its state, RaftCore installs it (install.go)
//
// # Beside the write
//
//	membership          member.go      a change of members, made of steps that RaftCore takes one at a time
//	operators' calls    admin.go       the same and more, from anywhere, as JSON over NATS
//	setting             setting.go     what the cluster has agreed on besides its members: instant failover or leases
//	lease               lease.go       reads without a round to a quorum
//	sessions            session.go     proposals that take effect once; package sessions is the replicated table behind them
//	forwarding          forward.go     proposals and read indexes of a node that does not lead
//	purge               purge.go       how far the log may be shortened
//	recovery            recover.go     a new cluster from a survivor's directory, or from a snapshot
//
// All goroutines end before Node.Done is closed.
package node
