// Package entrypb holds the Protocol Buffers form of log entries and of what a node's directory says of itself. Package storage
// converts it to and from the types of package raft.
package entrypb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-vtproto_out=. --go-vtproto_opt=paths=source_relative,features=marshal+unmarshal+size entry.proto
