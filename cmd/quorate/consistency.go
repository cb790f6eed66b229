package main

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"quorate/node/kv"
)

// readFlags say where and how a read is served.
type readFlags struct {
	consistency string
	node        string
	source      kv.Source
}

func (f *readFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.consistency, "consistency", "linearizable", "linearizable: sees every write that was acknowledged before; lease: the same, without a round to a quorum if the cluster has leases (quorate setting); local: what a node has, which may be old")
	flags.StringVar(&f.node, "node", "", "have the node with this id serve the read (default: the leader, or with local any node)")
}

func (f *readFlags) options() ([]kv.ReadOption, error) {
	var options []kv.ReadOption
	switch f.consistency {
	case "linearizable":
	case "lease":
		options = append(options, kv.Lease(&f.source))
	case "local":
		options = append(options, kv.Local(&f.source))
	default:
		return nil, usagef("--consistency is %q: it must be linearizable, lease or local", f.consistency)
	}
	if f.node != "" {
		if !natsToken.MatchString(f.node) {
			return nil, usagef("node id %q must be 1 to 64 letters, digits, '-' or '_'", f.node)
		}
		options = append(options, kv.FromNode(f.node))
	}
	return options, nil
}

// explain says of a read that nobody answered which node was asked for it.
func (f *readFlags) explain(err error) error {
	if f.node == "" || !isUnavailable(err) {
		return err
	}
	return fmt.Errorf("node %s, which --node names, does not answer: %w", f.node, err)
}

// report tells how stale a local read may be, and whether a lease was of use.
func (f *readFlags) report(a *app) {
	switch {
	case f.source.Node == "":
	case f.consistency == "lease" && f.source.Leased:
		fmt.Fprintf(a.stderr, "quorate: %s answered under its lease\n", f.source.Node)
	case f.consistency == "lease":
		fmt.Fprintf(a.stderr, "quorate: %s answered after a round to a quorum: it has no lease (quorate setting shows whether the cluster has leases; only its leader reads by them)\n", f.source.Node)
	case f.source.Staleness < 0:
		fmt.Fprintf(a.stderr, "quorate: %s answered; it has not heard of a leader\n", f.source.Node)
	default:
		fmt.Fprintf(a.stderr, "quorate: %s answered; it heard of the leader %v ago\n", f.source.Node, f.source.Staleness.Round(time.Millisecond))
	}
}
