package natsrpc

import (
	"fmt"
	"strings"

	"quorate/node/raft"
	"quorate/transport"
)

// The last tokens of the subjects, but for the incarnation.
const (
	rpcVote   = "vote"
	rpcAppend = "append"
	rpcPing   = "ping"
	rpcHello  = "hello"
	rpcAdopt  = "adopt"
	// What a node hands on to its leader for its users has a subscription, and so a goroutine, of its own.
	rpcInstall = "install"
	rpcNow     = "timeoutnow"
	rpcRead    = "read"
	rpcPropose = "propose"
)

func rpcOf(req transport.Request) (string, bool) {
	switch req.(type) {
	case *raft.VoteRequest:
		return rpcVote, true
	case *raft.AppendRequest:
		return rpcAppend, true
	case *transport.PingRequest:
		return rpcPing, true
	case *transport.HelloRequest:
		return rpcHello, true
	case *transport.AdoptRequest:
		return rpcAdopt, true
	case *raft.InstallRequest:
		return rpcInstall, true
	case *raft.TimeoutNowRequest:
		return rpcNow, true
	case *transport.ReadIndexRequest:
		return rpcRead, true
	case *transport.ProposeRequest:
		return rpcPropose, true
	}
	return "", false
}

func (t *Transport) subject(to raft.Peer, rpc string) string {
	s := t.stem + string(to.ID) + "." + rpc
	if to.Incarnation != 0 {
		s += "." + to.Incarnation.String()
	}
	return s
}

// checkNames refuses what could not stand in a subject, or would subscribe to those of others.
func checkNames(cfg Config) error {
	for token := range strings.SplitSeq(cfg.Prefix, ".") {
		if err := transport.CheckName(token); err != nil {
			return fmt.Errorf("prefix of subjects %q: %w", cfg.Prefix, err)
		}
	}
	if err := transport.CheckName(cfg.Cluster); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	if err := transport.CheckName(string(cfg.Self.ID)); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	return nil
}
