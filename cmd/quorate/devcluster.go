package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"

	"quorate/node"
	"quorate/node/kv"
	"quorate/node/raft"
	"quorate/transport/embednats"
)

// devCluster is a NATS server and a cluster of nodes in this process.
type devCluster struct {
	dir     *devDir
	server  *embednats.Server
	members []*member
	// failed gets the members that stop before they are closed. There is room for all.
	failed  chan *member
	watches sync.WaitGroup
}

// startDevCluster starts everything. It returns before there is a leader: see waitReady.
func startDevCluster(ctx context.Context, dir *devDir, port int, maxPayload int, observation *observation, logger *slog.Logger) (c *devCluster, err error) {
	server, err := embednats.Start(embednats.Options{
		Host: "127.0.0.1", Port: freePort(port), Dir: filepath.Join(dir.path, natsDir), JetStream: true,
		ServerName: "quorate-" + dir.layout.Cluster, Logger: logger, MaxPayload: maxPayload,
	})
	if err != nil {
		return nil, portAdvice(err, "`quorate dev --port 0` takes any that is free; the client commands may reach what runs there already: `quorate status`")
	}
	c = &devCluster{dir: dir, server: server, failed: make(chan *member, len(dir.layout.Nodes))}
	for _, id := range dir.layout.Nodes {
		m, err := startMember(ctx, memberConfig{
			cluster: dir.layout.Cluster, id: id, members: dir.layout.Nodes, dir: dir.node(id), url: server.ClientURL(), logger: logger, observe: observation,
		})
		if err != nil {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
			defer cancel()
			return nil, errors.Join(err, c.close(stop))
		}
		c.members = append(c.members, m)
		c.watches.Go(func() {
			<-m.node.Done()
			c.failed <- m
		})
	}
	return c, nil
}

// waitReady blocks until a node leads and the key-value store answers, and returns the leader's id.
func (c *devCluster) waitReady(ctx context.Context) (raft.NodeID, error) {
	leader, err := c.waitLeader(ctx)
	if err != nil {
		return "", err
	}
	target := natsTarget{url: c.server.ClientURL()}
	conn, err := target.dial(ctx, "quorate dev", defaultTimeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	client, err := kv.NewClient(conn, c.dir.layout.Cluster)
	if err != nil {
		return "", fmt.Errorf("client of the key-value store: %w", err)
	}
	err = retry{attempt: defaultTimeout, patience: devStartTimeout}.do(ctx, func(ctx context.Context) error {
		_, err := client.MaxValueBytes(ctx)
		return err
	})
	if err = errors.Join(err, client.Close()); err != nil {
		return "", fmt.Errorf("wait for the key-value store: %w", err)
	}
	return leader, nil
}

// waitLeader blocks until one of the nodes says that it serves.
func (c *devCluster) waitLeader(ctx context.Context) (raft.NodeID, error) {
	ctx, found := context.WithCancel(ctx)
	defer found()
	type answer struct {
		id  raft.NodeID
		err error
	}
	answers := make(chan answer, len(c.members))
	for _, m := range c.members {
		c.watches.Go(func() {
			_, err := m.node.Wait(ctx, func(s node.Status) bool { return s.Serving })
			answers <- answer{id: m.id, err: err}
		})
	}
	var last error
	for range c.members {
		a := <-answers
		if a.err == nil {
			return a.id, nil
		}
		last = fmt.Errorf("wait for a leader: node %s: %w", a.id, a.err)
		if errors.Is(a.err, node.ErrStopped) {
			return "", withStatus(statusFailed, last)
		}
	}
	if cause := context.Cause(ctx); errors.Is(cause, errInterrupted) {
		return "", cause
	}
	return "", last
}

// close stops the nodes, all at once, then NATS. It blocks until they have stopped or the context has ended.
func (c *devCluster) close(ctx context.Context) error {
	errs := make([]error, len(c.members))
	var group sync.WaitGroup
	for i, m := range c.members {
		group.Go(func() { errs[i] = m.close(ctx) })
	}
	group.Wait()
	err := errors.Join(errs...)
	if err == nil {
		c.watches.Wait()
	}
	return errors.Join(err, c.server.Close())
}

// shownDev is the JSON form of a dev cluster that is ready.
type shownDev struct {
	URL     string        `json:"url"`
	Cluster string        `json:"cluster"`
	Leader  raft.NodeID   `json:"leader"`
	Nodes   []raft.NodeID `json:"nodes"`
	Dir     string        `json:"dir"`
}

func (a *app) printDev(c *devCluster, leader raft.NodeID) error {
	layout := c.dir.layout
	if a.json() {
		return a.printJSON(shownDev{URL: c.server.ClientURL(), Cluster: layout.Cluster, Leader: leader, Nodes: layout.Nodes, Dir: c.dir.path})
	}
	data := "kept for the next start"
	switch {
	case c.dir.remove:
		data = "removed at the end"
	case !c.dir.created:
		data = "as it was left"
	}
	command := commandName() + " "
	flags := devClientFlags(c.server.ClientURL(), layout.Cluster)
	var text strings.Builder
	fmt.Fprintf(&text, "Cluster %s is ready: nodes %s.\n\n", layout.Cluster, joinIDs(layout.Nodes))
	fmt.Fprintf(&text, "  leader  %s\n", leader)
	fmt.Fprintf(&text, "  NATS    %s (JetStream on)\n", c.server.ClientURL())
	fmt.Fprintf(&text, "  data    %s (%s)\n\n", c.dir.path, data)
	fmt.Fprintf(&text, "Try next, in another terminal:\n\n")
	for _, next := range []string{"put greeting hello", "get greeting", "status"} {
		fmt.Fprintf(&text, "  %s%s%s\n", command, next, flags)
	}
	fmt.Fprintf(&text, "\nCtrl-C stops it.\n")
	return a.printf("%s", text.String())
}
