package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"quorate/transport/embednats"
)

const defaultListen = "127.0.0.1:4222"

// embedFlags say which NATS server to run inside of the process.
type embedFlags struct {
	embed       bool
	listen      string
	routeListen string
	routes      []string
	jetStream   bool
	maxPayload  string
}

// The flags that mean nothing without --embed.
var embedOnly = []string{"listen", "route-listen", "route", "jetstream", "max-payload"}

func (f *embedFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.embed, "embed", false, "run a NATS server inside of this process, instead of using one that is there")
	flags.StringVar(&f.listen, "listen", defaultListen, "with --embed: where the NATS server listens to clients, `host:port`")
	flags.StringVar(&f.routeListen, "route-listen", "", "with --embed: where it listens to the NATS servers of the other nodes, `host:port`")
	flags.StringSliceVar(&f.routes, "route", nil, "with --embed: --route-listen of another node, as nats://host:port; once for each, or with commas")
	flags.BoolVar(&f.jetStream, "jetstream", false, "with --embed: turn JetStream on, with its files below --dir")
	addMaxPayloadFlag(cmd, &f.maxPayload, "with --embed: ")
}

func addMaxPayloadFlag(cmd *cobra.Command, value *string, condition string) {
	cmd.Flags().StringVar(value, "max-payload", "1MiB", condition+"largest NATS message; at the first start it fixes the largest value")
}

// parseMaxPayload reads a size like 1MiB. NATS itself allows no more than 64 MiB.
func parseMaxPayload(s string) (int, error) {
	const smallest, largest = 64 << 10, 64 << 20
	n, err := humanize.ParseBytes(s)
	if err != nil || n < smallest || n > largest {
		return 0, usagef("--max-payload %q must be a size from 64KiB to 64MiB", s)
	}
	return int(n), nil
}

// check refuses combinations that cannot be meant.
func (f *embedFlags) check(cmd *cobra.Command) error {
	if !f.embed {
		for _, name := range embedOnly {
			if cmd.Flags().Changed(name) {
				return usagef("--%s needs --embed", name)
			}
		}
		return nil
	}
	for _, name := range []string{"nats", "context", "creds", "nkey", "user", "password", "tlscert", "tlskey", "tlsca"} {
		if cmd.Flags().Changed(name) {
			return usagef("--embed runs a NATS server of its own: it excludes --%s", name)
		}
	}
	if _, port, err := net.SplitHostPort(f.listen); f.listen == f.routeListen && err == nil && port != "0" {
		return usagef("--listen and --route-listen are both %s: clients and other servers need a port each", f.listen)
	}
	if len(f.routes) > 0 && f.routeListen == "" {
		return usagef("--route needs --route-listen: the other nodes' NATS servers connect to it")
	}
	for _, route := range f.routes {
		if _, err := embednats.ParseRoute(route); err != nil {
			return usagef("--route: %w", err)
		}
	}
	return nil
}

// start runs the server for a node. dir is the node's.
func (f *embedFlags) start(cluster, id, dir string, logger *slog.Logger) (*embednats.Server, error) {
	host, port, err := splitHostPort("--listen", f.listen)
	if err != nil {
		return nil, err
	}
	maxPayload, err := parseMaxPayload(f.maxPayload)
	if err != nil {
		return nil, err
	}
	options := embednats.Options{
		Host: host, Port: port, JetStream: f.jetStream, ServerName: cluster + "-" + id, Logger: logger, MaxPayload: maxPayload,
	}
	if f.jetStream {
		options.Dir = filepath.Join(dir, natsDir)
	}
	if f.routeListen != "" {
		routeHost, routePort, err := splitHostPort("--route-listen", f.routeListen)
		if err != nil {
			return nil, err
		}
		options.ClusterName = cluster
		options.ClusterListen = net.JoinHostPort(routeHost, strconv.Itoa(routePort))
		options.Routes = f.routes
	}
	server, err := embednats.Start(options)
	if err != nil {
		return nil, portAdvice(err, "--listen and --route-listen say where this one listens; without --embed, the node uses a server that runs already")
	}
	logger.Info("NATS server runs inside of this process", "url", server.ClientURL(), "routes", f.routes)
	for flag, address := range map[string]string{"--listen": f.listen, "--route-listen": f.routeListen} {
		if address != "" && !isLoopback(address) {
			logger.Warn("whoever reaches this address can read and write everything: the embedded NATS server asks nobody who they are", "flag", flag, "address", address)
		}
	}
	return server, nil
}

func splitHostPort(flag, address string) (host string, port int, err error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, usagef("%s %q must be host:port: %w", flag, address, err)
	}
	port, err = strconv.Atoi(portText)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, usagef("%s %q: the port must be a number up to 65535; 0 picks a free one", flag, address)
	}
	return host, freePort(port), nil
}

// freePort turns 0 into what the NATS server takes for "any free port".
func freePort(port int) int {
	if port == 0 {
		return -1
	}
	return port
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// portAdvice adds what to do to an error that says that somebody else listens where a server shall.
func portAdvice(err error, advice string) error {
	var inUse *embednats.PortError
	if errors.As(err, &inUse) {
		return fmt.Errorf("%w: %s", err, advice)
	}
	return err
}
