package kv

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
)

// headerClusterID of a leader's answer says which cluster it leads. Subjects have the cluster's name alone.
const headerClusterID = "Quorate-Cluster-Id"

// namesakeAgain is how long a leader waits before it looks again whether another cluster serves, whether it serves itself or not.
const namesakeAgain = 5 * time.Second

// watchNamesakes has look ask who leads under the cluster's name. Another cluster may do so although nobody did before: its leader began at the
// same time, or did not answer, or NATS brought them together only now. Whoever has just begun gives way, and else the one with the greater id: both look.
func (l *server) watchNamesakes(ctx context.Context) error {
	config, conn, own := l.node.Config(), l.node.Conn(), l.node.ClusterID().String()
	inbox, found, began := conn.NewInbox(), make(chan string, 1), time.Now()
	answers, err := conn.Subscribe(inbox, func(m *nats.Msg) {
		if id := m.Header.Get(headerClusterID); id != "" && id != own && (id < own || time.Since(began) < namesakeAgain) {
			select {
			case found <- id:
			default:
			}
		}
	})
	if err != nil {
		return err
	}
	l.namesakes = found
	l.look = func() error { return conn.PublishRequest(config.Prefix+"."+config.Cluster+".kv.leader", inbox, nil) }
	context.AfterFunc(ctx, func() { _ = answers.Unsubscribe() })
	return nil
}

// namesake asks who leads under the cluster's name already. It is the id of that one's cluster if that is another one than this node's: one
// that was given up (`quorate recover`) and came back, say. Both would get all requests, and clients take the answer of the first. It takes a
// round trip if nobody leads, and a heartbeat interval if whoever does is silent.
func (s *Service) namesake(ctx context.Context) (id string, err error) {
	config := s.node.Config()
	ctx, cancel := context.WithTimeout(ctx, config.HeartbeatInterval)
	defer cancel()
	reply, err := s.node.Conn().RequestWithContext(ctx, config.Prefix+"."+config.Cluster+".kv.leader", nil)
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded):
		return "", nil
	case err != nil:
		return "", err
	}
	if id = reply.Header.Get(headerClusterID); id == s.node.ClusterID().String() {
		id = ""
	}
	return id, nil
}
