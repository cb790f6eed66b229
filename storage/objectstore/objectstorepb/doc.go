// Package objectstorepb holds the Protocol Buffers form of a snapshot's manifest. Package objectstore converts it to and from
// its own types.
package objectstorepb

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-vtproto_out=. --go-vtproto_opt=paths=source_relative,features=marshal+unmarshal+size manifest.proto
