package kv

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
)

// headerClusterID of a leader's answer says which cluster it leads. Subjects have the cluster's name alone.
const headerClusterID = "Quorate-Cluster-Id"

// namesakeAgain is how long a leader waits before it looks again whether another cluster serves.
const namesakeAgain = 5 * time.Second

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
