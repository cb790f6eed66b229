// Package kvpb holds the Protocol Buffers form of the key-value store's commands and requests.
package kvpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-vtproto_out=. --go-vtproto_opt=paths=source_relative,features=marshal+unmarshal+unmarshal_unsafe+size kv.proto
