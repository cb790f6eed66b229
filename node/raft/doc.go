// Package raft is consensus itself, pure: the types of Raft, its Engine, and the Replicator protocol of a worker. It has no
// goroutine, no channel, no clock, no lock and no I/O, and imports the standard library only.
//
//	messages, completed writes, progress, time
//	        │
//	        ▼
//	     Engine ──▶ Output: one Write, then messages that depend on no write that is not durable
//	        │
//	        ▼ Replication: what each worker should bring its peer to
//	   Replicator ──▶ Send ... Answered / Failed ──▶ Progress, back to the Engine
//
// Where each rule of the paper lives:
//
//	election.go    votes and pre-votes (5.2, 5.4.1; dissertation 9.6)
//	follower.go    append requests: consistency check, conflicts, commit index (5.3)
//	leader.go      leadership, targets, check-quorum (5.2; dissertation 6.2)
//	commit.go      what a quorum has, of the own term (5.4.2)
//	read.go        linearizable reads (8; dissertation 6.4)
//	lease.go       reads without a round: the voters' promise, and the leader's lease (dissertation 6.4.1)
//	setting.go     what the cluster has agreed on besides its members, as an entry
//	replicator.go  probe and pipeline of one peer (5.3, 5.5)
//	quorum.go      majorities, simple and joint (6)
//	durability.go  what must be on disk before what (figure 2)
//	change.go      membership: any set to any set by joint consensus (6; dissertation 4)
//	transfer.go    handing leadership over (dissertation 3.10)
//	snapshot.go    snapshots offered, installed, and what may be purged (7)
//	control.go     what an operator may tell an engine
//	failover.go    instant failover by "no responders"; not in the paper
//	wellformed.go  what is checked of a message before it is believed
//	invariants.go  what always holds, for tests
package raft
