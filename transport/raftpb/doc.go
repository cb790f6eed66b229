// Package raftpb holds the Protocol Buffers form of the messages between nodes. Package transport converts it to and from the
// types of package raft.
package raftpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-vtproto_out=. --go-vtproto_opt=paths=source_relative,features=marshal+unmarshal_unsafe+size raft.proto
